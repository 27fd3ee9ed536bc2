package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration or secret file.
const maxFile = 1 << 20

// delimiter separates keys inside viper. Not the dot: it would split server
// names.
const delimiter = "::"

// Load reads the YAML file at path, if path is not empty, and over it the
// variables of environ that begin with PASSERELLE_, and checks the whole. Its
// error is [Mistakes] with everything that is wrong.
//
// Without a path, and with the variables of an lk-jwt-service, it reads those:
// see [DropIn].
func Load(path string, environ []string) (*Config, error) {
	if path == "" && isDropIn(environ) {
		return loadDropIn(environ)
	}
	var mistakes Mistakes
	c, whole := read(path, environ, &mistakes)
	if !whole {
		return nil, mistakes.err()
	}
	c.readSecretFiles(&mistakes)
	c.validate(&mistakes)
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return &c, nil
}

// read is the configuration as file and environment have it. It reports false
// when the file could not be read at all: what it does not say would be taken
// as missing then.
func read(path string, environ []string, mistakes *Mistakes) (Config, bool) {
	values := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	whole := path == "" || readFile(values, path, mistakes)
	readEnvironment(values, environ, mistakes)
	c := Default()
	decode(&c, values, mistakes)
	return c, whole
}

// Draft is Load for a configuration that is not finished: what is missing or
// wrong in value is no mistake, and secret files are not read. Its error is
// [Mistakes] about what cannot be read at all.
func Draft(path string, environ []string) (*Config, error) {
	var mistakes Mistakes
	c, _ := read(path, environ, &mistakes)
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return &c, nil
}

// Validate checks a configuration that was not loaded but built. It reads no
// secret files; otherwise it finds what [Load] finds, and its error is
// [Mistakes] too.
func (c *Config) Validate() error {
	var mistakes Mistakes
	c.validate(&mistakes)
	return mistakes.err()
}

// readFile says whether the file could be read as far as its keys.
func readFile(values *viper.Viper, path string, mistakes *Mistakes) bool {
	data, err := readBounded(path)
	if err != nil {
		mistakes.add(path, strings.TrimPrefix(plainFileError(err), path+": "), "name a file that can be read with -config")
		return false
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) { // an empty file is a good one
			return true
		}
		mistakes.add(path, strings.TrimPrefix(err.Error(), "yaml: "), "mind indentation, and quote texts with special characters")
		return false
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		mistakes.add(path, "holds more than one YAML document", "remove the line --- and what follows it")
		return false
	}
	root := document.Content[0]
	if root.Tag == "!!null" {
		return true
	}
	checked := checkTree(root, mistakes)
	// Only what is known and stands once goes on; the rest is reported.
	if err := values.MergeConfigMap(checked); err != nil {
		mistakes.add(path, err.Error(), "")
	}
	return true
}

// readEnvironment sets what the environment says. Lists of texts are separated
// by commas; the rules are YAML or JSON.
func readEnvironment(values *viper.Viper, environ []string, mistakes *Mistakes) {
	known := map[string]leaf{}
	var names []string
	for _, l := range leaves() {
		known[l.env()] = l
		names = append(names, l.env())
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || ownVariables[name] || serviceLink.MatchString(name) {
			continue
		}
		l, ok := known[name]
		switch {
		case !ok:
			mistakes.add(name, "there is no such key", didYouMean(name, names))
		case l.kind == reflect.TypeFor[[]string]():
			list := []string{}
			for item := range strings.SplitSeq(value, ",") {
				if item = strings.TrimSpace(item); item != "" {
					list = append(list, item)
				}
			}
			values.Set(viperKey(l.path), list)
		case l.kind.Kind() == reflect.Slice:
			var list yaml.Node
			if err := yaml.Unmarshal([]byte(value), &list); err != nil || len(list.Content) != 1 {
				mistakes.add(name, "is not a list", `write [{"server": "…", "access": "join"}]`)
				continue
			}
			if checked, ok := checkRules(l.path, list.Content[0], mistakes); ok {
				values.Set(viperKey(l.path), checked)
			}
		default:
			values.Set(viperKey(l.path), value)
		}
	}
}

// ownVariables are read by main or by the tests and are no keys.
var ownVariables = map[string]bool{
	"PASSERELLE_CONFIG": true, "PASSERELLE_REQUIRE_PARTS": true, "PASSERELLE_PARTS_DIR": true, "PASSERELLE_SOAK": true,
}

// serviceLink matches the variables that Kubernetes sets, in every container of
// a namespace, for a Service that is called passerelle. No key looks like them.
var serviceLink = regexp.MustCompile(`^PASSERELLE_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func viperKey(path string) string { return strings.ReplaceAll(path, ".", delimiter) }

// didYouMean is what to write instead of an unknown key: the nearest of those
// that may stand there, or the key of that name in another section.
func didYouMean(unknown string, known []string) string {
	if near := cmp.Or(nearest(unknown, known), elsewhere(unknown)); near != "" {
		return "did you mean " + near + "?"
	}
	return "remove it; docs/configuration.md lists all keys"
}

// readBounded reads a file whose size nobody promised.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// plainFileError is the error without the name of the system call.
func plainFileError(err error) string {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Path + ": " + e.Err.Error()
	}
	return err.Error()
}
