// One switch for all folded code of a page; the choice holds for the pages that are opened next.
document.addEventListener("DOMContentLoaded", () => {
    const folded = [...document.querySelectorAll("details.above-input")];
    const bar = document.querySelector(".article-header-buttons");
    if (!folded.length || !bar) return;
    const button = document.createElement("button");
    button.className = "btn btn-sm code-switch";
    button.type = "button";
    const show = (open) => {
        folded.forEach((details) => (details.open = open));
        button.textContent = open ? "Hide code" : "Show code";
        button.setAttribute("aria-pressed", open);
    };
    const kept = (value) => {
        try {
            if (value !== undefined) localStorage.setItem("cmic-code", value);
            return localStorage.getItem("cmic-code") === "true";
        } catch {
            return value === true; // storage is switched off
        }
    };
    button.addEventListener("click", () => show(kept(button.getAttribute("aria-pressed") !== "true")));
    bar.prepend(button);
    show(kept());
});
