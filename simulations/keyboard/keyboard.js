"use strict";
// All text of models and of the typist is set as textContent, so none of it is read as HTML.
const ROWS = ["qwertyuiop", "asdfghjkl", "'zxcvbnm\u232b", ", ."];
const LONGEST = 2000;
const WORD = /[^\W_]['\w-]*$/u;
const element = (id) => document.getElementById(id);
const made = (tag, text, name) => {
  const one = document.createElement(tag);
  one.textContent = text;
  if (name) one.className = name;
  return one;
};

let text = "";
let asked = 0;
let answered = 0;
let last = null;
const times = [];
const shares = [];

function press(key) {
  if (key === "Backspace" || key === "\u232b") text = text.slice(0, -1);
  else if (text.length < LONGEST) text += key;
  show();
}

function take(word) {
  const begun = WORD.exec(text);
  const before = begun ? text.slice(0, begun.index) : text;
  const space = begun || before === "" || /\s$/.test(before) ? "" : " ";
  text = `${before}${space}${word} `.slice(0, LONGEST);
  show();
}

function show() {
  element("text").textContent = text;
  element("message").scrollTop = element("message").scrollHeight;
  ask();
}

async function ask() {
  const number = ++asked;
  try {
    const reply = await fetch("suggest", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({text}),
    });
    if (!reply.ok) throw new Error(`the keyboard's program answered ${reply.status}`);
    const answer = await reply.json();
    if (number < answered) return;  // a later one was faster
    answered = number;
    problem(answer.error);
    if (!answer.error) update(answer);
  } catch (error) {
    problem(error instanceof TypeError ? "The program fedsi try has ended." : String(error.message));
  }
}

function problem(sentence) {
  element("problem").hidden = !sentence;
  element("problem").textContent = sentence || "";
}

function update(answer) {
  last = answer;
  const shared = (word) => answer.models.length > 1
    && answer.models.every((model) => model.words.includes(word));
  element("strips").replaceChildren(...answer.models.map((model) => strip(model, shared)));
  answer.models.forEach((model, k) => (times[k] = times[k] || []).push(model.milliseconds));
  element("times").replaceChildren(...answer.models.map((model, k) => {
    const row = document.createElement("tr");
    row.append(made("td", model.name), made("td", milliseconds(model.milliseconds)),
      made("td", milliseconds(median(times[k]))));
    return row;
  }));
  if (answer.shared === null) return;
  shares.push(answer.shared);
  const mean = shares.reduce((sum, one) => sum + one, 0) / shares.length;
  element("agreement").textContent =
    `${answer.shared} of 3 suggestions agree; ${mean.toFixed(1)} on average over ${shares.length} keys.`;
}

function strip(model, shared) {
  const one = made("div", "", "strip");
  const head = document.createElement("header");
  head.append(made("span", model.name), made("span", milliseconds(model.milliseconds)));
  const words = made("div", "", "words");
  for (let k = 0; k < 3; k++) {
    const word = model.words[k] || "";
    const button = made("button", word, shared(word) ? "both" : "");
    button.type = "button";
    button.disabled = !word;
    button.addEventListener("click", () => take(word));
    words.append(button);
  }
  one.append(head, words);
  return one;
}

const milliseconds = (number) => `${number.toFixed(2)} ms`;
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

function build() {
  for (const letters of ROWS) {
    const row = made("div", "", "row");
    for (const letter of letters) {
      const names = {" ": "space", "\u232b": "delete", ",": "comma", ".": "full stop", "'": "apostrophe"};
      const key = made("button", letter === " " ? "space" : letter,
        letter === " " ? "wide" : letter === "\u232b" ? "more" : "");
      key.type = "button";
      key.dataset.key = letter === "\u232b" ? "Backspace" : letter;
      if (names[letter]) key.setAttribute("aria-label", names[letter]);
      key.addEventListener("click", () => { press(letter); key.blur(); });
      row.append(key);
    }
    element("keys").append(row);
  }
}

function light(key, on) {
  for (const button of document.querySelectorAll("#keys button"))
    if (button.dataset.key === key.toLowerCase() || button.dataset.key === key)
      button.classList.toggle("down", on);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = document.activeElement instanceof HTMLButtonElement;
  if (onButton && (event.key === " " || event.key === "Enter")) return;
  const words = last ? last.models[0].words : [];
  if (/^[123]$/.test(event.key)) {
    if (words[event.key - 1]) take(words[event.key - 1]);
  } else if (event.key === "Backspace" || [...event.key].length === 1) press(event.key);
  else return;
  light(event.key, true);
  event.preventDefault();
});
document.addEventListener("keyup", (event) => light(event.key, false));
build();
show();
