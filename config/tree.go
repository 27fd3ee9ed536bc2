package config

import (
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checkTree walks the YAML mapping of a configuration file and returns what
// stands under known keys, once each. Everything else becomes a mistake.
func checkTree(root *yaml.Node, mistakes *Mistakes) map[string]any {
	return checkSection("", reflect.TypeFor[Config](), root, mistakes)
}

func checkSection(prefix string, section reflect.Type, node *yaml.Node, mistakes *Mistakes) map[string]any {
	checked := map[string]any{}
	name := strings.TrimSuffix(prefix, ".")
	if node.Kind != yaml.MappingNode {
		if node.Tag != "!!null" {
			mistakes.add(orFile(name), "line "+strconv.Itoa(node.Line)+": a section is expected here", "write its keys below it, indented")
		}
		return checked
	}
	fields := map[string]reflect.Type{}
	var known []string
	for i := range section.NumField() {
		if !isKey(section.Field(i)) {
			continue
		}
		key := section.Field(i).Tag.Get("mapstructure")
		fields[key] = section.Field(i).Type
		known = append(known, key)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := prefix + key.Value
		field, ok := fields[key.Value]
		switch _, twice := checked[key.Value]; {
		case value.Kind == yaml.AliasNode || key.Value == "<<":
			mistakes.add(path, "YAML aliases are not read", "write the value itself")
		case !ok:
			mistakes.add(path, "line "+strconv.Itoa(key.Line)+": there is no such key", didYouMean(key.Value, known))
		case twice:
			mistakes.add(path, "line "+strconv.Itoa(key.Line)+": the key stands twice", "keep one of them")
		case field.Kind() == reflect.Struct:
			checked[key.Value] = checkSection(path+".", field, value, mistakes)
		case field == reflect.TypeFor[[]FederationRule]():
			rules, good := checkRules(path, value, mistakes)
			checked[key.Value] = nil
			if good {
				checked[key.Value] = rules
			}
		default:
			checked[key.Value] = checkScalar(path, value, mistakes)
		}
	}
	return checked
}

// checkScalar decodes a text, number, truth value or list of them.
func checkScalar(path string, node *yaml.Node, mistakes *Mistakes) any {
	var value any
	if node.Kind == yaml.SequenceNode {
		list := []any{}
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				mistakes.add(path, "line "+strconv.Itoa(item.Line)+": a list of texts is expected", "write - and a text on each line")
				return nil
			}
			list = append(list, checkScalar(path, item, mistakes))
		}
		return list
	}
	if node.Kind != yaml.ScalarNode {
		mistakes.add(path, "line "+strconv.Itoa(node.Line)+": the value does not fit", "this key has no keys below it")
		return nil
	}
	if err := node.Decode(&value); err != nil {
		mistakes.add(path, "line "+strconv.Itoa(node.Line)+": the value does not fit", "quote it if it is a text")
		return nil
	}
	return value
}

// checkRules checks a list of rules and their keys.
func checkRules(path string, node *yaml.Node, mistakes *Mistakes) ([]map[string]any, bool) {
	if node.Tag == "!!null" {
		return []map[string]any{}, true
	}
	if node.Kind != yaml.SequenceNode {
		mistakes.add(path, "the value does not fit", expected(reflect.TypeFor[[]FederationRule]()))
		return nil, false
	}
	rules := make([]map[string]any, 0, len(node.Content))
	for i, item := range node.Content {
		rules = append(rules, checkSection(rulePath(path, i)+".", reflect.TypeFor[FederationRule](), item, mistakes))
	}
	return rules, true
}

func orFile(name string) string {
	if name == "" {
		return "the file"
	}
	return name
}
