// Package caller is one person in a call: a Chromium of its own with a made-up
// camera and a made-up microphone, that opens the link of the host page, and a
// way to ask what that person really sees and hears.
//
// It starts, drives and ends browsers. It knows nothing of homeservers, of
// Passerelle or of how many callers there are, and decides nothing about what
// is good: it reports media, the caller of this package judges.
//
// A Caller may be used by several goroutines. Its browser is its own process
// group, has a fresh profile, resolves no name of the outside world, and is
// gone when Close or Kill returns, or when this process dies.
//
// Options has Tone and Hears, in hertz: the package makes the sound file that
// the microphone hears by itself, and must know both tones to tell the voice of
// the other from an echo of its own.
package caller
