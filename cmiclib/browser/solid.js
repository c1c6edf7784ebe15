// Draw a mesh, base64 of quantised corners and colours, on a canvas; mouse, touch and arrow keys turn it.
// No WebGL: 4,000 faces are filled pixel by pixel, the nearest wins, in some ten milliseconds.
function solid(canvas, { corners, colors }) {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const places = new Int16Array(bytes(corners).buffer); // 9 numbers a face, the unit is 1 / 16,384
  const shades = bytes(colors); // 3 numbers a face
  const count = shades.length / 3;
  const pen = canvas.getContext("2d");
  let turn = 0.52, tilt = 0.35;

  function draw() {
    canvas.width = canvas.height = Math.max(1, Math.round(2 * canvas.clientWidth)); // shown at half: smooth borders
    const side = canvas.width, unit = (0.85 * side) / 16384;
    const [s, c, S, C] = [Math.sin(turn), Math.cos(turn), Math.sin(tilt), Math.cos(tilt)];
    const at = new Float32Array(9), picture = pen.createImageData(side, side);
    const depth = new Float32Array(side * side).fill(-Infinity);
    for (let f = 0; f < count; f++) {
      for (let i = 0; i < 9; i += 3) {
        const [x, y, z] = places.subarray(9 * f + i, 9 * f + i + 3);
        const across = c * x - s * z, ahead = s * x + c * z; // the camera is at +z after turning
        at[i] = side / 2 + unit * across;
        at[i + 1] = side / 2 - unit * (C * y - S * ahead);
        at[i + 2] = S * y + C * ahead;
      }
      const a = [at[3] - at[0], at[1] - at[4], (at[5] - at[2]) * unit];
      const b = [at[6] - at[0], at[1] - at[7], (at[8] - at[2]) * unit];
      const normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
      const length = Math.hypot(...normal) || 1;
      const facing = normal[2] < 0 ? -1 : 1; // both sides of a face are seen
      const light = 0.45 + 0.55 * Math.max(0, (facing * (-0.4 * normal[0] + 0.6 * normal[1] + 0.7 * normal[2])) / length);
      fill(at, f, light, depth, picture);
    }
    pen.putImageData(picture, 0, 0);
  }

  function fill([x0, y0, z0, x1, y1, z1, x2, y2, z2], f, light, depth, picture) {
    const side = picture.width, area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    if (!area) return;
    const [left, right] = [Math.min(x0, x1, x2), Math.max(x0, x1, x2)].map((x) => Math.min(side - 1, Math.max(0, x | 0)));
    const [above, below] = [Math.min(y0, y1, y2), Math.max(y0, y1, y2)].map((y) => Math.min(side - 1, Math.max(0, y | 0)));
    for (let y = above; y <= below; y++) {
      for (let x = left; x <= right; x++) {
        const one = ((x + 0.5 - x0) * (y2 - y0) - (x2 - x0) * (y + 0.5 - y0)) / area;
        const two = ((x1 - x0) * (y + 0.5 - y0) - (x + 0.5 - x0) * (y1 - y0)) / area;
        if (one < 0 || two < 0 || one + two > 1) continue;
        const at = y * side + x, near = z0 + one * (z1 - z0) + two * (z2 - z0);
        if (near <= depth[at]) continue;
        depth[at] = near;
        for (let k = 0; k < 3; k++) picture.data[4 * at + k] = (80 + 0.68 * shades[3 * f + k]) * light;
        picture.data[4 * at + 3] = 255;
      }
    }
  }

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    turn += event.movementX / 120;
    tilt = Math.min(1.5, Math.max(-1.5, tilt + event.movementY / 120));
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (!step) return;
    event.preventDefault();
    turn += step[0];
    tilt = Math.min(1.5, Math.max(-1.5, tilt + step[1]));
    draw();
  });
  new ResizeObserver(draw).observe(canvas); // also when its answer is opened
}

for (const canvas of document.querySelectorAll("canvas[data-solid]"))
  solid(canvas, JSON.parse(document.getElementById(canvas.dataset.solid).textContent));
