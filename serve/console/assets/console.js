// The console's own few lines: the reader's times, copying, the chart, and what happens while the server is away.
"use strict";
(() => {
  const zone = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});
  const away = document.getElementById("away");
  let since = null, edited = false;

  function tellTimes(root) {
    for (const one of root.querySelectorAll("time[datetime]")) {
      const text = zone.format(new Date(one.dateTime));
      if (one.textContent !== text) { one.title = one.dateTime; one.textContent = text; }
    }
  }

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function draw(root) {
    if (!window.uPlot) return;
    for (const one of root.querySelectorAll("[data-plot]")) {
      if (one.firstChild || !one.clientWidth) continue;
      const line = {stroke: colour("--dim"), grid: {stroke: colour("--line"), width: 1}, ticks: {show: false}};
      try {
        new uPlot({
          width: one.clientWidth, height: one.clientHeight, cursor: {y: false}, legend: {show: false},
          scales: {y: {range: (_, low, high) => [0, Math.max(4, high)]}},
          axes: [line, {...line, size: 50}],
          series: [{}, {label: "requests by minute", stroke: colour("--c0"), width: 2, points: {show: false}},
            {label: "without a whole answer", stroke: colour("--c1"), width: 2, points: {show: false}}],
        }, JSON.parse(one.dataset.plot), one);
      } catch (error) { console.warn("no chart:", error); }
    }
  }

  async function copy(button) {
    try { await navigator.clipboard.writeText(button.dataset.copy); }
    catch {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return;
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function answered(response) {
    const now = response.headers.get("x-wardrobe-since");
    if (!now) return;
    const other = since !== null && now !== since;
    since = now;
    away.hidden = true;
    if (other && !edited) location.reload();
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("input", event => { if (event.target.closest("form[method=post]")) edited = true; });
  document.addEventListener("htmx:before:request", event => {
    if (document.hidden && event.target.closest("[hx-trigger^=every]")) event.preventDefault();
  });
  document.addEventListener("htmx:before:response", event => {
    const response = event.detail.ctx.response;
    if (response.status === 401) { event.preventDefault(); if (!edited) location.reload(); return; }
    if (response.status >= 400) { event.preventDefault(); if (response.status >= 500) away.hidden = false; return; }
    answered(response);
  });
  document.addEventListener("htmx:error", () => { away.hidden = false; });

  function look() { tellTimes(document); draw(document); }
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
  addEventListener("load", look);
  look();
})();
