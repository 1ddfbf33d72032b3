// What this browser remembers: small things in local storage, or for this visit only where that is forbidden.

const fallback = new Map();

export function recall(name, otherwise = "") {
  try {
    return localStorage.getItem("edgeai." + name) ?? otherwise;
  } catch {
    return fallback.get(name) ?? otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem("edgeai." + name, value);
  } catch {
    fallback.set(name, value);
  }
}
