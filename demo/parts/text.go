package parts

import (
	"fmt"
	"time"
)

// text is what is said while a part is fetched. Each takes the name of the part
// and a time.
type text struct{ fetching, fetched, installing string }

var texts = map[string]text{
	"fr": {
		fetching:   "Téléchargement de %s (d’ordinaire %s) …\n",
		fetched:    "%s est là, en %s.\n",
		installing: "Installation de %s (d’ordinaire %s) …\n",
	},
	"en": {
		fetching:   "Fetching %s (usually %s) …\n",
		fetched:    "Fetched %s in %s.\n",
		installing: "Installing %s (usually %s) …\n",
	},
}

// say writes a line for people.
func (s *Store) say(line func(text) string, name string, t time.Duration) {
	of, ok := texts[s.Lang]
	if !ok {
		of = texts["en"]
	}
	fmt.Fprintf(s.Progress, line(of), name, t)
}
