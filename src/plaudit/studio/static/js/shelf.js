/**
 * Where the browser keeps what the server has not acknowledged: IndexedDB, else localStorage, else
 * only this page's memory (`isKept` is false then, and the page says so).
 *
 * Two stores: "outbox" (votes, numbered in the order they were cast, over all tabs) and "drafts" (texts
 * being written, by offer).
 */

/**
 * @typedef {{id?: number, who: string, key: string, offer: string, kind: string,
 *   value: Record<string, unknown>, seconds: number, visible_seconds: number, at: number,
 *   refused?: string}} Entry
 */
/**
 * @typedef {{isKept: boolean, all(): Promise<Entry[]>, add(entry: Entry): Promise<number>,
 *   change(entry: Entry): Promise<void>, remove(ids: number[]): Promise<void>,
 *   draft(key: string): Promise<unknown>, setDraft(key: string, value: unknown): Promise<void>}} Shelf
 */

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @implements {Shelf} */
class Database {
  /** @param {IDBDatabase} db */
  constructor(db) {
    this.db = db;
    this.isKept = true;
  }

  static async open() {
    const request = indexedDB.open("plaudit", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("outbox", { keyPath: "id", autoIncrement: true });
      request.result.createObjectStore("drafts");
    };
    const db = await answer(request);
    db.onversionchange = () => db.close();
    return new Database(db);
  }

  /**
   * One transaction; done once the browser says that it is on the disk.
   * @template T
   * @param {"outbox" | "drafts"} name
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest<T>} act
   * @returns {Promise<T>}
   */
  async within(name, mode, act) {
    const transaction = this.db.transaction(name, mode, { durability: "strict" });
    const request = act(transaction.objectStore(name));
    await new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
    return request.result;
  }

  all() {
    return this.within("outbox", "readonly", (store) => store.getAll());
  }

  /** @param {Entry} entry */
  async add(entry) {
    return Number(await this.within("outbox", "readwrite", (store) => store.add(entry)));
  }

  /** @param {Entry} entry */
  async change(entry) {
    await this.within("outbox", "readwrite", (store) => store.put(entry));
  }

  /** @param {number[]} ids */
  async remove(ids) {
    const [first, ...others] = ids;
    if (first === undefined) return;
    await this.within("outbox", "readwrite", (store) => {
      for (const id of others) store.delete(id);
      return store.delete(first);
    });
  }

  /** @param {string} key */
  draft(key) {
    return this.within("drafts", "readonly", (store) => store.get(key));
  }

  /**
   * @param {string} key
   * @param {unknown} value undefined forgets it
   */
  async setDraft(key, value) {
    const act = (/** @type {IDBObjectStore} */ store) =>
      /** @type {IDBRequest<unknown>} */ (value === undefined ? store.delete(key) : store.put(value, key));
    await this.within("drafts", "readwrite", act);
  }
}

/** The same on a list in localStorage, or in memory alone. @implements {Shelf} */
class Simple {
  /** @param {Storage | null} storage */
  constructor(storage) {
    this.storage = storage;
    this.isKept = storage !== null;
    this.memory = "[]";
    /** @type {Map<string, unknown>} */
    this.drafts = new Map();
  }

  /** @returns {Entry[]} */
  read() {
    return JSON.parse((this.storage ? this.storage.getItem("plaudit-outbox") : this.memory) ?? "[]");
  }

  /** @param {Entry[]} entries */
  write(entries) {
    this.memory = JSON.stringify(entries);
    this.storage?.setItem("plaudit-outbox", this.memory);
  }

  async all() {
    return this.read();
  }

  /** @param {Entry} entry */
  async add(entry) {
    const entries = this.read();
    const id = 1 + Math.max(0, ...entries.map((one) => one.id ?? 0));
    this.write([...entries, { ...entry, id }]);
    return id;
  }

  /** @param {Entry} entry */
  async change(entry) {
    this.write(this.read().map((one) => (one.id === entry.id ? entry : one)));
  }

  /** @param {number[]} ids */
  async remove(ids) {
    this.write(this.read().filter((one) => !ids.includes(one.id ?? 0)));
  }

  /** @param {string} key */
  async draft(key) {
    return this.drafts.get(key);
  }

  /**
   * @param {string} key
   * @param {unknown} value
   */
  async setDraft(key, value) {
    this.drafts.set(key, value);
  }
}

/** @returns {Promise<Shelf>} the best this browser has */
export async function openShelf() {
  try {
    return await Database.open();
  } catch {
    // private windows and locked-down browsers
  }
  try {
    localStorage.setItem("plaudit-try", "1");
    localStorage.removeItem("plaudit-try");
    return new Simple(localStorage);
  } catch {
    return new Simple(null);
  }
}
