package federation_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/federation"
)

func TestXMatrixHeader(t *testing.T) {
	const want = "a.example:8448 b.example ed25519:k+/1 c2ln+/"
	for name, header := range map[string]string{
		"as Synapse writes it":   `X-Matrix origin="a.example:8448",key="ed25519:k+/1",sig="c2ln+/",destination="b.example"`,
		"with blanks":            "X-Matrix  origin = \"a.example:8448\" ,\tdestination=\"b.example\", key=\"ed25519:k+/1\" ,sig=\"c2ln+/\"  ",
		"without quotes":         `X-Matrix origin=a.example:8448,destination=b.example,key=ed25519:k+/1,sig=c2ln+/`,
		"scheme in lower case":   `x-matrix origin="a.example:8448",destination="b.example",key="ed25519:k+/1",sig="c2ln+/"`,
		"names in capitals":      `X-MATRIX ORIGIN="a.example:8448",Destination="b.example",KEY="ed25519:k+/1",Sig="c2ln+/"`,
		"with what is not known": `X-Matrix origin="a.example:8448",destination="b.example",x="a,b=\"c",key="ed25519:k+/1",sig="c2ln+/",y=1`,
		"with escapes":           `X-Matrix origin="a\.example:8448",destination="b.example",key="ed25519:k+/1",sig="c2\ln+/"`,
	} {
		t.Run(name, func(t *testing.T) {
			origin, destination, key, signature, err := federation.ParseXMatrix([]string{header})
			require.NoError(t, err)
			require.Equal(t, want, fmt.Sprint(origin, " ", destination, " ", key, " ", signature))
		})
	}
	const good = `X-Matrix origin="a",destination="b",key="k",sig="s"`
	for name, headers := range map[string][]string{
		"none":                     nil,
		"an empty one":             {""},
		"two":                      {good, good},
		"one good, one of another": {good, "Bearer x"},
		"another scheme":           {strings.Replace(good, "X-Matrix", "Bearer", 1)},
		"a longer scheme":          {strings.Replace(good, "X-Matrix", "X-Matrix2", 1)},
		"the scheme alone":         {"X-Matrix"},
		"nothing in it":            {"X-Matrix "},
		"a page":                   {good + `,x="` + strings.Repeat("x", 2048) + `"`},
		"many parameters":          {good + strings.Join(parameters(13), "")},
		"no origin":                {`X-Matrix destination="b",key="k",sig="s"`},
		"an empty origin":          {strings.Replace(good, `"a"`, `""`, 1)},
		"no destination":           {`X-Matrix origin="a",key="k",sig="s"`},
		"no key":                   {`X-Matrix origin="a",destination="b",sig="s"`},
		"no signature":             {`X-Matrix origin="a",destination="b",key="k"`},
		"two origins":              {good + `,origin="c"`},
		"the same origin twice":    {good + `,origin="a"`},
		"two, one in capitals":     {good + `,ORIGIN="c"`},
		"two of no meaning":        {good + `,x=1,x=2`},
		"a comma at the end":       {good + ","},
		"a comma too many":         {strings.Replace(good, ",", ",,", 1)},
		"no comma":                 {strings.Replace(good, ",", " ", 1)},
		"a quote too few":          {strings.TrimSuffix(good, `"`)},
		"a quote too many":         {good + `"`},
		"letters after a quote":    {good + "x"},
		"an escape at the end":     {`X-Matrix origin="a",destination="b",key="k",sig="s\`},
		"no value":                 {good + ",x="},
		"no name":                  {good + `,="x"`},
		"no equals sign":           {good + ",x"},
		"a control character":      {strings.Replace(good, `"a"`, "\"a\x00\"", 1)},
		"a line break":             {strings.Replace(good, `"a"`, "\"a\n\"", 1)},
		"not ASCII":                {strings.Replace(good, `"a"`, `"é"`, 1)},
		"a quote inside":           {strings.Replace(good, `"a"`, `a"b`, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, _, err := federation.ParseXMatrix(headers)
			require.ErrorIs(t, err, federation.ErrNotSigned)
		})
	}
}

func parameters(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(",x%d=1", i)
	}
	return list
}

// FuzzXMatrixHeader: whatever is read can be written again, and is read the
// same; no value holds what would end it.
func FuzzXMatrixHeader(f *testing.F) {
	for _, seed := range []string{
		`X-Matrix origin="a.example",key="ed25519:1",sig="AAAA",destination="b.example"`,
		`x-matrix origin=a:1,destination=b , key=ed25519:1,sig=A\"`, `X-Matrix origin="a\"b",x="`, "X-Matrix ,", "X-Matrix origin=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		origin, destination, key, signature, err := federation.ParseXMatrix([]string{header})
		if err != nil {
			return
		}
		escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
		var written []string
		for name, value := range map[string]string{"origin": origin, "destination": destination, "key": key, "sig": signature} {
			require.NotEmpty(t, value)
			require.Zero(t, strings.IndexFunc(value+"\x00", func(r rune) bool { return r < ' ' || r > '~' })-len(value))
			written = append(written, name+`="`+escape.Replace(value)+`"`)
		}
		again := "X-Matrix " + strings.Join(written, ",")
		if len(again) > 2048 {
			return // escapes made it too long
		}
		o, d, k, s, err := federation.ParseXMatrix([]string{again})
		require.NoError(t, err)
		require.Equal(t, []string{origin, destination, key, signature}, []string{o, d, k, s})
	})
}
