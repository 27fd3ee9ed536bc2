package headless

import (
	"fmt"

	"passerelle/demo/caller"
)

// text is what the timeline says.
type text struct {
	opened, joined, left, hungUp, killed, givenUp, sfuKilled, pictureBack string
	// These take a name.
	live, seenBy string
	// received takes width, height, pictures and hertz.
	received, encrypted string
}

var texts = map[string]text{
	"fr": {
		opened:      "a ouvert la page",
		joined:      "est dans l’appel",
		left:        "a quitté l’appel",
		hungUp:      "appuie sur le bouton pour quitter",
		killed:      "n’est plus là : son navigateur a été tué",
		givenUp:     "est considéré comme parti par LiveKit",
		sfuKilled:   "perd son SFU : il a été tué",
		pictureBack: "réapparaît",
		live:        "voit et entend %s",
		seenBy:      "vu par le %s",
		received:    "%d×%d, %d images différentes, un son à %d Hz",
		encrypted:   ", chiffré",
	},
	"en": {
		opened:      "opened the page",
		joined:      "is in the call",
		left:        "has left the call",
		hungUp:      "presses the button that leaves",
		killed:      "is gone: his browser was killed",
		givenUp:     "is given up by LiveKit",
		sfuKilled:   "loses the SFU: it was killed",
		pictureBack: "is seen again",
		live:        "sees and hears %s",
		seenBy:      "seen by the %s",
		received:    "%d×%d, %d different pictures, a tone of %d Hz",
		encrypted:   ", encrypted",
	},
}

// describe says what somebody receives of the other.
func (t text) describe(m caller.Media) string {
	said := fmt.Sprintf(t.received, m.Width, m.Height, m.Images, m.PeakHz)
	if m.Encrypted {
		said += t.encrypted
	}
	return said
}
