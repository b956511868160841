// Put at the end of a page with a heap map by ci/browser.sh: uses what is on it as a person would, and says in the page's body what
// came of it: data-slider, data-movie, data-colours.
"use strict";

(() => {
  const controls = document.querySelector(".heap-map .controls");
  const slider = controls.querySelector("input[type=range]");
  const play = controls.querySelector("button");
  const colours = controls.querySelector("select");
  const canvas = document.querySelector(".heap-map canvas");
  const shown = () => `${document.querySelector(".heap-map figcaption").textContent}\n${canvas.toDataURL()}`;
  const say = (what, text) => { document.body.dataset[what] = text; };
  const slide = (to) => {
    slider.value = String(to);
    slider.dispatchEvent(new Event("input"));
    return shown();
  };

  const blank = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height }).toDataURL();
  const last = Number(slider.max);
  const [first, end] = [slide(0), slide(last)];
  say("slider", last > 0 && first !== end && !first.endsWith(blank) && slide(0) === first ? "moves" : "stands still");

  const looks = [...colours.options].map((option) => {
    colours.value = option.value;
    colours.dispatchEvent(new Event("change"));
    return shown();
  });
  // Occupancy and age differ from spaces; pins and holes may be the same everywhere.
  say("colours", looks.length === 5 && new Set(looks.slice(0, 3)).size === 3 ? "differ" : "are the same");
  colours.value = "space";
  colours.dispatchEvent(new Event("change"));

  const idle = play.textContent;
  const seen = new Set();
  play.click();
  const watch = setInterval(() => {
    seen.add(slider.value);
    if (play.textContent === idle) {
      clearInterval(watch);
      say("movie", seen.size === last + 1 && shown() === end ? "plays" : `stopped after ${seen.size} of ${last + 1}`);
    }
  }, 50);
})();
