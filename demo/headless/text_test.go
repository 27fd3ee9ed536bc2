package headless

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/demo/caller"
)

func TestWhatIsReceivedIsSaidInBothLanguages(t *testing.T) {
	m := caller.Media{Images: 9, Width: 320, Height: 180, PeakHz: 1168, Encrypted: true}
	require.Equal(t, "320×180, 9 images différentes, un son à 1168 Hz, chiffré", texts["fr"].describe(m))
	m.Encrypted = false
	require.Equal(t, "320×180, 9 different pictures, a tone of 1168 Hz", texts["en"].describe(m))
}

func TestNoLanguageLacksASentence(t *testing.T) {
	for lang, say := range texts {
		for i := range reflect.TypeFor[text]().NumField() {
			require.NotEmpty(t, reflect.ValueOf(say).Field(i).String(), "%s, %s", lang, reflect.TypeFor[text]().Field(i).Name)
		}
	}
}
