"use strict";
(() => {
  const slides = [...document.querySelectorAll(".slide")];
  const nearest = () => {
    const middle = innerHeight / 2;
    const away = (slide) => {
      const box = slide.getBoundingClientRect();
      return Math.abs(box.top + box.height / 2 - middle);
    };
    return slides.reduce((best, slide, k) => (away(slide) < away(slides[best]) ? k : best), 0);
  };
  const go = (k) => {
    const slide = slides[Math.min(Math.max(k, 0), slides.length - 1)];
    slide.scrollIntoView({ block: "start" });
    history.replaceState(null, "", "#" + slide.id);
  };
  const steps = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, n: 1,
    ArrowLeft: -1, ArrowUp: -1, PageUp: -1, Backspace: -1, p: -1 };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.key === " " && event.shiftKey ? -1 : steps[event.key];
    if (step) go(nearest() + step);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(slides.length - 1);
    else if (event.key === "f") document.documentElement.requestFullscreen?.().catch(() => {});
    else return;
    event.preventDefault();
  });
  // A slide whose words do not fit is set smaller, step by step.
  const overflows = (slide) => {
    const area = slide.querySelector(".evidence");
    if (!area) return slide.scrollHeight > slide.clientHeight + 1;
    const floor = area.getBoundingClientRect().bottom + 1;
    return [...area.querySelectorAll("li, dd, tr, figcaption, .missing, svg, img")].some(
      (part) => part.getBoundingClientRect().bottom > floor);
  };
  const fit = () => {
    const flowing = matchMedia("(max-width: 820px), (orientation: portrait)").matches;
    for (const slide of slides)
      for (let size = 1; slide.style.setProperty("--fit", size), size > 0.6; size -= 0.04)
        if (flowing || !overflows(slide)) break;
  };
  fit();
  addEventListener("resize", fit);
  let start = null;
  addEventListener("touchstart", (event) => { start = event.changedTouches[0]; }, { passive: true });
  addEventListener("touchend", (event) => {
    const end = event.changedTouches[0];
    if (!start) return;
    const across = end.clientX - start.clientX;
    if (Math.abs(across) > 60 && Math.abs(across) > 2 * Math.abs(end.clientY - start.clientY))
      go(nearest() - Math.sign(across));
    start = null;
  }, { passive: true });
})();
