'use strict';
// The page: it keeps what is chosen, asks the server for pictures, and shows the answer to the last question.
const find = id => document.getElementById(id);
const chosen = {image: null, point: [0.5, 0.5]};
let answer = null, wanted = null, running = false;

function say(text, kind = '') {
  find('status').textContent = text;
  find('status').className = kind;
}

async function ask(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error('The server does not answer. Is it still running?');
  }
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

function clear() {
  for (const image of document.querySelectorAll('figure img')) {
    image.removeAttribute('src');
    image.alt = '';
  }
  for (const id of ['heading', 'note', 'heat-note']) find(id).textContent = '';
  find('rows').replaceChildren();
  find('downloads').hidden = true;
}

// One request at a time; of those that come meanwhile only the last one is sent, so that the last click is shown.
async function show() {
  if (!chosen.image) return;
  wanted = {model: find('model').value, image: chosen.image, point: chosen.point, stage: +find('stage').value,
            block: +find('block').value, score: +find('score').value};
  if (running) return;
  running = true;
  find('status').classList.add('busy');
  while (wanted) {
    const body = JSON.stringify(wanted);
    wanted = null;
    try {
      const value = await ask('predict', {method: 'POST', body});
      if (!wanted) draw(value);
    } catch (error) {
      if (!wanted) {
        clear();
        say(error.message, 'error');
      }
    }
  }
  running = false;
}

function draw(value) {
  answer = value;
  const names = value.rows.map(row => `${row.name} ${row.text}`).join(', ') || 'nothing found';
  const texts = {prediction: `Prediction. ${value.heading}: ${names}`, seen: 'The image as the model sees it',
                 tokens: value.note, heat: value.heat_note};
  for (const [id, text] of Object.entries(texts)) {
    find(id).src = value[id];
    find(id).alt = text;
    find(id).decode().then(() => {
      find(id).parentElement.style.setProperty('--shape', `${find(id).naturalWidth} / ${find(id).naturalHeight}`);
    }, () => {});
  }
  find('heading').textContent = value.heading;
  find('note').textContent = value.note;
  find('heat-note').textContent = `${value.heat_note} Click, or use the arrow keys, to choose another.`;
  find('block').replaceChildren(...Array.from({length: value.blocks}, (_, i) => new Option(i, i)));
  find('block').value = value.block;
  find('rows').replaceChildren(...value.rows.map(row));
  if (!value.rows.length) find('rows').textContent = 'None.';
  find('score-label').hidden = !value.heading.startsWith('Objects');
  find('downloads').hidden = false;
  find('picture').href = value.prediction;
  const results = value.rows.map(({name, value}) => ({name, value}));
  const content = {image: chosen.name, status: value.status, heading: value.heading, results};
  // A spreadsheet would run a name that begins like a formula.
  const cell = text => `"${String(text).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const lines = [['name', 'value'], ...results.map(({name, value}) => [name, value])];
  offer('json', 'application/json', JSON.stringify(content, null, 1));
  offer('csv', 'text/csv', lines.map(line => line.map(cell).join(',')).join('\n'));
  say(value.status);
}

function offer(id, type, text) {
  URL.revokeObjectURL(find(id).href);
  find(id).href = URL.createObjectURL(new Blob([text], {type}));
}

function row({name, value, text, color}) {
  const line = document.createElement('div'), paint = color ? `rgb(${color})` : '';
  line.className = 'row';
  line.innerHTML = '<span><i></i></span><span><b></b></span><span></span>';
  const [label, bar, number] = line.children;
  label.title = name;
  label.append(name);
  label.firstChild.style.background = paint;
  label.firstChild.hidden = !color;
  bar.firstChild.style.width = `${100 * value}%`;
  bar.firstChild.style.background = paint;
  number.textContent = text;
  return line;
}

async function choose(file) {
  say(`Reading ${file.name} …`, 'busy');
  try {
    const kept = await ask('images', {method: 'POST', body: file, headers: {'X-Name': encodeURIComponent(file.name)}});
    Object.assign(chosen, {image: kept.key, name: file.name});
    await show();
  } catch (error) {
    chosen.image = null;
    clear();
    say(error.message, 'error');
  }
}

function move(event) {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!steps || !answer) return;
  event.preventDefault();
  chosen.point = chosen.point.map((side, i) => Math.min(Math.max(side + steps[i] * answer.step[i], 0), 1));
  show();
}

function point(event) {
  const image = find('heat'), box = image.getBoundingClientRect();
  if (!image.naturalWidth) return;
  // In full screen the picture is smaller than its element.
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const sizes = [image.naturalWidth * scale, image.naturalHeight * scale];
  const shares = [(event.clientX - box.left - (box.width - sizes[0]) / 2) / sizes[0],
                  (event.clientY - box.top - (box.height - sizes[1]) / 2) / sizes[1]];
  if (shares.some(share => share < 0 || share > 1)) return;
  chosen.point = shares;
  show();
}

async function start() {
  find('model').addEventListener('change', () => {
    if (find('model').value) return show();
    const path = prompt(`Path of a checkpoint in ${find('folder').textContent}`);
    if (path) find('model').add(new Option(path), 0);
    find('model').selectedIndex = 0;
    show();
  });
  for (const id of ['stage', 'block', 'score']) find(id).addEventListener('change', show);
  find('score').addEventListener('input', () => { find('score-value').textContent = (+find('score').value).toFixed(2); });
  find('cut').addEventListener('input', () => find('tokens').style.setProperty('--cut', `${find('cut').value}%`));
  find('controls').addEventListener('submit', event => event.preventDefault());
  find('file').addEventListener('change', () => find('file').files[0] && choose(find('file').files[0]));
  find('heat-figure').addEventListener('click', point);
  find('heat-figure').addEventListener('keydown', move);
  for (const button of document.querySelectorAll('.larger')) {
    const figure = button.closest('section').querySelector('figure');
    button.addEventListener('click', () => figure.requestFullscreen());
  }
  const tabs = [...document.querySelectorAll('#tabs button')], panels = document.querySelectorAll('section');
  for (const tab of tabs) {
    tab.addEventListener('click', () => tabs.forEach((other, i) => {
      other.setAttribute('aria-pressed', other === tab);
      panels[i].classList.toggle('shown', other === tab);
    }));
  }
  for (const kind of ['dragover', 'drop']) {
    document.addEventListener(kind, event => event.preventDefault());
  }
  document.addEventListener('dragover', () => document.body.classList.add('drop'));
  document.addEventListener('dragleave', () => document.body.classList.remove('drop'));
  const take = files => files && files[0] && choose(files[0]);
  document.addEventListener('drop', event => { document.body.classList.remove('drop'); take(event.dataTransfer.files); });
  document.addEventListener('paste', event => take(event.clipboardData.files));
  try {
    const {folder, models} = await ask('models'), examples = await ask('examples');
    find('folder').textContent = folder;
    find('model').replaceChildren(...models.map(name => new Option(name)), new Option('another path …', ''));
    if (!models.length) say(`There is no checkpoint (*.pth) in ${folder}. Run make demo, or start the page with --dir and reload it.`, 'error');
    find('examples').replaceChildren(...examples.map(name => {
      const button = document.createElement('button'), image = new Image();
      Object.assign(image, {src: `examples/${encodeURIComponent(name)}`, alt: `Example ${name}`});
      button.type = 'button';
      button.append(image);
      button.addEventListener('click', async () => choose(new File([await (await fetch(image.src)).blob()], name)));
      return button;
    }));
  } catch (error) {
    say(error.message, 'error');
  }
}

start();
