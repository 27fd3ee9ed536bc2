package config

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// leaf is one key that has a value: everything that is not a section.
type leaf struct {
	// path is the key's path, such as server.public_url.
	path string
	// index finds the field in a Config.
	index []int
	kind  reflect.Type
}

// env is the environment variable that sets the leaf.
func (l leaf) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(l.path, ".", "_"))
}

const envPrefix = "PASSERELLE_"

// leaves lists all keys of the configuration, in the order of the structs.
func leaves() []leaf { return appendLeaves(nil, reflect.TypeFor[Config](), "", nil) }

func appendLeaves(list []leaf, section reflect.Type, prefix string, index []int) []leaf {
	for i := range section.NumField() {
		field := section.Field(i)
		if !isKey(field) {
			continue
		}
		path := prefix + field.Tag.Get("mapstructure")
		at := append(slices.Clone(index), i)
		if field.Type.Kind() == reflect.Struct {
			list = appendLeaves(list, field.Type, path+".", at)
			continue
		}
		list = append(list, leaf{path, at, field.Type})
	}
	return list
}

// isKey tells fields that a file or the environment may set from the others.
func isKey(field reflect.StructField) bool { return field.Tag.Get("mapstructure") != "-" }

// expected says in words what a value of the type looks like.
func expected(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "write a duration such as 30s, 5m or 1h"
	case t == reflect.TypeFor[[]FederationRule]():
		return "write a list of rules, each with server and access"
	}
	switch t.Kind() {
	case reflect.Int:
		return "write a whole number"
	case reflect.Bool:
		return "write true or false"
	case reflect.Slice:
		return "write a list of texts"
	}
	return "write a text"
}

// nearest is the known key that an unknown one was probably meant to be, or "".
func nearest(unknown string, known []string) string {
	// A third of the letters, and no more than three, may be wrong.
	best, distance := "", min(3, (len(unknown)+2)/3)+1
	for _, k := range known {
		if len(unknown) > len(k)+distance {
			continue
		}
		if d := editDistance(unknown, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// elsewhere is the path of the key with that name in another section, or "".
func elsewhere(name string) string {
	for _, l := range leaves() {
		if strings.HasSuffix(l.path, "."+name) {
			return l.path
		}
	}
	return ""
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
