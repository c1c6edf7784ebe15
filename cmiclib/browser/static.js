// The page holds every answer; this shows the chosen one and fills in its pictures. It asks nobody for anything.
(() => {
  for (const root of document.querySelectorAll("[data-cmic-static]:not([data-ready])")) {
    root.dataset.ready = "";
    const all = (selector, within = root) => [...within.querySelectorAll(selector)];
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const model = root.querySelector("model-viewer"), status = root.querySelector("[role=status]");
    const photos = all("[data-photo]");
    const fill = (element) => {
      for (const image of all("img[data-picture]:not([src])", element)) image.src = data.pictures[image.dataset.picture];
    };
    const press = (buttons, pressed) => buttons.forEach((button) => button.setAttribute("aria-pressed", button === pressed));
    const showShape = (answer, rank) => {
      press(all("[data-rank]", answer), answer.querySelector(`[data-rank="${rank}"]`));
      for (const part of all("[data-views]", answer)) part.hidden = part.dataset.views !== String(rank);
      const part = answer.querySelector(`[data-views="${rank}"]`);
      fill(part);
      const shape = data.shapes[part.dataset.shape];
      root.querySelector(".cmic-solid").hidden = !shape.model;
      if (!shape.model) return;
      model.setAttribute("alt", `3D model of ${shape.name}`);
      model.setAttribute("src", shape.model);
    };
    const showPhoto = (name) => {
      press(photos, photos.find((button) => button.dataset.photo === name));
      for (const answer of all("[data-answer]")) answer.hidden = answer.dataset.answer !== name;
      const answer = all("[data-answer]").find((element) => !element.hidden);
      fill(answer.querySelector(".cmic-photo"));
      fill(answer.querySelector(".cmic-ranking"));
      showShape(answer, 1);
      const [left, top] = data.places[name], here = root.querySelector(".cmic-here");
      Object.assign(here.style, { left: `${left}%`, top: `${top}%` });
      here.setAttribute("aria-label", `The photo lies ${Math.round(left)} per cent from the left and ${Math.round(top)} per cent from the top`);
    };
    const filter = () => {
      const [category, outcome] = all("select").map((select) => select.value);
      for (const button of photos)
        button.hidden = (category && button.dataset.category !== category) || (outcome && button.dataset.outcome !== outcome);
      const left = photos.filter((button) => !button.hidden);
      status.textContent = `${left.length} of ${photos.length} photos`;
      if (left.length && !left.some((button) => button.getAttribute("aria-pressed") === "true")) showPhoto(left[0].dataset.photo);
    };
    fill(root.querySelector(".cmic-choose"));
    photos.forEach((button) => button.addEventListener("click", () => showPhoto(button.dataset.photo)));
    all("[data-answer]").forEach((answer) =>
      all("[data-rank]", answer).forEach((button) => button.addEventListener("click", () => showShape(answer, button.dataset.rank))));
    all("select").forEach((select) => select.addEventListener("change", filter));
    filter();
  }
})();
