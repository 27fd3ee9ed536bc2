// Trouble is an error that the page has words for: kind is a key of errors in
// text.js, cause is for the console and in small print.
export class Trouble extends Error {
  constructor(kind, cause) {
    super(kind, { cause });
    this.kind = kind;
  }
}
