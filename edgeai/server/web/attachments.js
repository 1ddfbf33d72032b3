// Text files whose words go into the prompt.

const MOST_BYTES = 256 << 10; // a small model's context is a few tens of kilobytes of text

/** {name, text} of a file. Throws an Error whose message is the key of a message to people. */
export async function read(file) {
  if (file.size > MOST_BYTES) throw new Error("fileTooLarge");
  const bytes = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (text.includes("\0")) throw new TypeError();
    return { name: file.name, text };
  } catch {
    throw new Error("fileNotText");
  }
}
