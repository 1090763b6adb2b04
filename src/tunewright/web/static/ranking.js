// The ranking sheet by keyboard and mouse. The radio buttons of the form are the ranking; this only sets them, and draws
// the tray from them. Without it the page works all the same. Never makes up an answer: the server checks what is sent.
"use strict";

(() => {
  let tied = false;      // "=" was pressed: the next completion shares the place of the one before
  let order = [];        // numbers in the order in which they got a place
  let followed = 0;      // the number that got the last place by itself
  let since = 0;         // when this sheet came into sight
  let seen = 0;          // milliseconds in which it was in sight before that
  let drag = null;

  const form = () => document.getElementById("ranking");
  const size = () => Number(document.getElementById("main")?.dataset.count || 0);
  const numbers = () => Array.from({ length: size() }, (_, i) => i + 1);
  const radios = (number) => [...form().querySelectorAll(`input[name="place-${number}"]`)];
  const placeOf = (number) => Number(radios(number).find((radio) => radio.checked)?.value || 0);
  const unplaced = () => numbers().filter((number) => !placeOf(number));
  const nameOf = (place) => radios(1)[place - 1].nextElementSibling.textContent;

  function setPlace(number, place) {
    for (const radio of radios(number)) radio.checked = Number(radio.value) === place;
    order = order.filter((one) => one !== number);
    if (place) order.push(number);
    if (followed === number) followed = 0;
  }

  function clear() {
    for (const number of numbers()) setPlace(number, 0);
    tied = false;
  }

  // The best place that nobody has.
  function freePlace() {
    const taken = new Set(numbers().map(placeOf));
    return numbers().find((place) => !taken.has(place)) || size();
  }

  // ---- keys ----

  function choose(number) {
    // Of three or more, people also type the last one, which has followed already. Of two, it is a change of mind.
    if (number === followed && size() > 2) return void (followed = 0);
    if (!unplaced().length) clear();             // said anew from the best on
    else if (placeOf(number)) return draw(setPlace(number, 0));
    const before = order.at(-1);
    setPlace(number, tied && before ? placeOf(before) : freePlace());
    tied = false;
    const rest = unplaced();
    if (rest.length === 1 && size() > 1) {
      setPlace(rest[0], freePlace());
      followed = rest[0];
    }
    draw();
  }

  function tie() {
    if (!order.length) {
      for (const number of numbers()) setPlace(number, 1);
    } else if (followed) {
      setPlace(followed, placeOf(order.at(-2)));
    } else if (unplaced().length) {
      tied = !tied;
    } else {
      return draw();
    }
    draw();
  }

  function back() {
    tied = false;
    if (followed) setPlace(followed, 0);
    if (order.length) setPlace(order.at(-1), 0);
    draw();
  }

  const allBad = () => form().querySelector('input[name="flags"]');

  function save() {
    const missing = unplaced();
    if (missing.length && !(allBad().checked && missing.length === size())) {
      const verb = missing.length > 1 ? "have" : "has";
      const listed = [missing.slice(0, -1).join(", "), missing.at(-1)].filter(Boolean).join(" and ");
      return say(`${listed} ${verb} no place yet.`, true);
    }
    press(form().querySelector('button[value="save"]'));
  }

  const waiting = () => document.querySelector("form.htmx-request");

  function press(button) {
    if (button && !waiting()) button.click();
  }

  function leaveNote() {
    document.activeElement.blur();
    document.getElementById("main").focus({ preventScroll: true });
  }

  const ACTIONS = {
    "=": tie,
    Backspace: back,
    "0": () => { allBad().checked = !allBad().checked; draw(); },
    Enter: save,
    s: () => press(form().querySelector('button[value="skip"]')),
    n: () => {
      const note = form().querySelector(".note");
      note.open = true;
      note.querySelector("textarea").focus({ preventScroll: true });
    },
  };

  document.addEventListener("keydown", (event) => {
    // What is pressed between saving and the next sheet was meant for neither.
    if (event.isComposing || event.repeat || event.altKey || waiting()) return;
    const at = event.target;
    const main = document.getElementById("main");
    if (at.matches("textarea, input:not([type=radio]):not([type=checkbox])")) {
      if (event.key === "Escape") leaveNote();
      const send = event.key === "Enter" && (event.ctrlKey || event.metaKey) && at.form;
      if (send) press(at.form.querySelector("button.primary"));
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "Enter" && at.closest("button, a, summary")) return;
    let action = form() ? ACTIONS[key] : undefined;
    if (form() && /^[1-9]$/.test(key) && Number(key) <= size()) action = () => choose(Number(key));
    if (key === "u" && main?.querySelector("#undo[hx-post]")) action = () => press(document.querySelector('[form="undo"], #undo button'));
    if (!action) return;
    event.preventDefault();
    action();
  });

  // ---- the tray, drawn from the radio buttons ----

  function chip(number) {
    const made = document.createElement("span");
    made.className = "chip";
    made.dataset.number = number;
    made.textContent = number;
    return made;
  }

  function slot(place, name) {
    const made = document.createElement("div");
    const inside = numbers().filter((number) => placeOf(number) === place);
    made.className = place ? "slot" : "slot pool";
    if (place && inside.length) made.classList.add("filled");
    made.dataset.place = place;
    if (name) made.append(Object.assign(document.createElement("span"), { className: "slot-name", textContent: name }));
    made.append(...inside.map(chip));
    return made;
  }

  function say(text, wrong = false) {
    const hint = form().querySelector(".hint");
    hint.textContent = text;
    hint.classList.toggle("wrong", wrong);
  }

  function sentence() {
    const hint = form().querySelector(".hint");
    const rest = unplaced();
    if (rest.length === size()) return allBad().checked ? "All bad: Enter saves it so, or rank them too." : hint.dataset.rest;
    const groups = numbers()
      .map((place) => numbers().filter((number) => placeOf(number) === place))
      .filter((group) => group.length)
      .map((group) => group.join(" = "));
    const said = groups.length === 1 && !rest.length ? "All the same" : groups.join(" › ");
    if (tied) return `${said} = ?`;
    return rest.length ? `${said} › ?` : `${said}. Enter saves it.`;
  }

  function draw() {
    if (!form()) return;
    const tray = form().querySelector(".tray");
    tray.replaceChildren(slot(0, ""), ...numbers().map((place) => slot(place, nameOf(place))));
    tray.firstChild.hidden = !unplaced().length;
    tray.hidden = false;
    say(sentence());
  }

  document.addEventListener("change", (event) => {
    const radio = event.target.closest('#ranking input[type="radio"]');
    if (radio) setPlace(Number(radio.name.slice(6)), Number(radio.value));
    if (event.target.closest("#ranking")) draw();
  });

  // ---- dragging: a number onto a place ----

  document.addEventListener("pointerdown", (event) => {
    const held = event.target.closest("#ranking .chip, #ranking .key");
    if (!held || event.button !== 0) return;
    const number = Number(held.dataset.number || held.closest(".card").dataset.number);
    drag = { number, held, x: event.clientX, y: event.clientY, ghost: null };
    event.preventDefault();
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 5) return;
    if (!drag.ghost) {
      drag.ghost = chip(drag.number);
      drag.ghost.classList.add("ghost");
      drag.held.classList.add("lifted");
      document.body.append(drag.ghost);
      document.body.classList.add("dragging");
    }
    drag.ghost.style.left = `${event.clientX}px`;
    drag.ghost.style.top = `${event.clientY}px`;
    const over = slotAt(event);
    for (const one of form().querySelectorAll(".slot")) one.classList.toggle("over", one === over);
  });

  const slotAt = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest("#ranking .slot");

  function drop(event) {
    if (!drag) return;
    const { number, ghost, held } = drag;
    drag = null;
    ghost?.remove();
    held.classList.remove("lifted");
    document.body.classList.remove("dragging");
    if (!form() || event.type === "pointercancel") return;
    if (!ghost) return choose(number);
    const over = slotAt(event);
    if (over) setPlace(number, Number(over.dataset.place));
    draw();
  }

  document.addEventListener("pointerup", drop);
  document.addEventListener("pointercancel", drop);

  // ---- time in sight ----

  const running = () => (document.visibilityState === "visible" ? performance.now() - since : 0);

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") since = performance.now();
    else seen += performance.now() - since;
  });

  document.addEventListener("submit", (event) => {
    const seconds = event.target.querySelector('input[name="seconds"]');
    if (seconds) seconds.value = ((seen + running()) / 1000).toFixed(2);
  }, true);

  // ---- a new sheet, and what couldn't be saved ----

  function begin() {
    tied = false;
    followed = 0;
    seen = 0;
    since = performance.now();
    order = form() ? numbers().filter(placeOf).sort((a, b) => placeOf(a) - placeOf(b)) : [];
    document.body.classList.toggle("scripted-sheet", Boolean(form()));
    draw();
  }

  document.addEventListener("htmx:before:response", (event) => {
    const { status } = event.detail.ctx.response;
    if (status < 400 || status === 422) return;
    event.preventDefault();
    failed(status === 401 ? "the server was started anew; open the address that its terminal shows" : `the server said ${status}`);
  });

  document.addEventListener("htmx:error", (event) => {
    if (event.detail.ctx?.request?.method === "POST") failed("the server doesn't answer");
  });

  function failed(reason) {
    if (form()) say(`Not saved: ${reason}. Your ranking is still here; try again with Enter.`, true);
  }

  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail.ctx?.target?.id === "live") return;
    begin();
    window.scrollTo(0, 0);
    if (!document.activeElement || document.activeElement === document.body) {
      document.getElementById("main")?.focus({ preventScroll: true });
    }
  });

  begin();
})();
