// Conversations in the browser's own database; for this visit only where there is none (private windows).
//
// A conversation: {id, title, updated, messages: [{role, content, reasoning?, files?: [{name, text}]}]}

const memory = new Map();
let opening = null;

function open() {
  opening ??= new Promise(resolve => {
    if (!globalThis.indexedDB) return resolve(null);
    const request = indexedDB.open("edgeai", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
  return opening;
}

async function run(mode, action) {
  const database = await open();
  if (!database) return null;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction("conversations", mode);
    const request = action(transaction.objectStore("conversations"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

export function begin() {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  return { id, title: "", updated: 0, messages: [] };
}

/** All conversations, the newest first. */
export async function all() {
  const kept = await run("readonly", store => store.getAll()) ?? [...memory.values()];
  return kept.sort((a, b) => b.updated - a.updated);
}

export async function keep(conversation) {
  conversation.updated = Date.now();
  if (await open()) await run("readwrite", store => store.put(conversation));
  else memory.set(conversation.id, structuredClone(conversation));
}

export async function forget(id) {
  memory.delete(id);
  await run("readwrite", store => store.delete(id));
}

/** Whether conversations outlive this visit. */
export const lasting = async () => Boolean(await open());

/** What the model reads: files go before the words that speak of them. */
export function prompt(messages) {
  return messages.map(({ role, content, files = [] }) => {
    const attached = files.map(file => `[${file.name}]\n${file.text}\n\n`).join("");
    return { role, content: attached + content };
  });
}

export function asMarkdown(conversation) {
  const turns = prompt(conversation.messages).map(({ role, content }) => `## ${role}\n\n${content}\n`);
  return `# ${conversation.title}\n\n${turns.join("\n")}`;
}
