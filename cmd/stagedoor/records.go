package main

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxRecords bounds the items of a list of records.
const maxRecords = 64

// A list of records is a setting whose items are structs, such as forges. It has
// neither flag nor variable: only YAML can write it.

// isRecords tells such a setting by its type.
func isRecords(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// records reads a list of records as strictly as the rest of the file. It
// returns the list in the type of f, and nil after a mistake.
func (w *yamlWalker) records(f field, n *yaml.Node) any {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxRecords {
		w.report.addLine(n.Line, f.Key, "expected a list of up to %d items, each with keys below a hyphen, got %s", maxRecords, describe(n))
		return nil
	}
	list := reflect.MakeSlice(f.Value.Type(), len(n.Content), len(n.Content))
	ok := true
	for i, item := range n.Content {
		w.report.lines[fmt.Sprintf("%s[%d]", f.Key, i)] = item.Line
		ok = w.record(f, i, resolve(item), list.Index(i)) && ok
	}
	if !ok {
		return nil
	}
	return list.Interface()
}

func (w *yamlWalker) record(f field, i int, n *yaml.Node, into reflect.Value) bool {
	if n.Kind != yaml.MappingNode {
		w.report.addItem(f.Key, i, "expected keys with values, got %s", describe(n))
		return false
	}
	seen := map[string]bool{}
	ok := true
	for j := 0; j+1 < len(n.Content); j += 2 {
		key, value := n.Content[j], resolve(n.Content[j+1])
		member, known := recordMember(into, key)
		err := error(nil)
		switch {
		case !known:
			err = fmt.Errorf("there is no such key in an item; there are %s", strings.Join(recordKeys(into.Type()), ", "))
		case seen[key.Value]:
			err = fmt.Errorf("it is set a second time: keep one")
		case !isNull(value):
			err = setRecordMember(member, value)
		}
		seen[key.Value] = true
		if err != nil {
			ok = false
			w.report.addLine(key.Line, fmt.Sprintf("%s[%d].%s", f.Key, i, quoteIfOdd(key.Value)), "%v", err)
		}
	}
	return ok
}

func recordMember(record reflect.Value, key *yaml.Node) (reflect.Value, bool) {
	for i := range record.NumField() {
		if key.Kind == yaml.ScalarNode && record.Type().Field(i).Tag.Get("yaml") == key.Value {
			return record.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func recordKeys(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return keys
}

// setRecordMember reads text, true or false, a list of texts, or texts with a list
// of them each.
func setRecordMember(member reflect.Value, n *yaml.Node) error {
	switch into := member.Addr().Interface().(type) {
	case *string:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			return fmt.Errorf("expected text, got %s", describe(n))
		}
		*into = n.Value
	case *bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			return fmt.Errorf("expected true or false, got %s", describe(n))
		}
		return n.Decode(into)
	case *[]string:
		list, err := textList(n)
		*into = list
		return err
	case *map[string][]string:
		if n.Kind != yaml.MappingNode {
			return fmt.Errorf("expected names with a list of texts each, got %s", describe(n))
		}
		*into = map[string][]string{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			texts, err := textList(resolve(n.Content[i+1]))
			if err != nil {
				return fmt.Errorf("%s: %w", quoteIfOdd(n.Content[i].Value), err)
			}
			if _, twice := (*into)[n.Content[i].Value]; twice {
				return fmt.Errorf("%s: it is there twice", quoteIfOdd(n.Content[i].Value))
			}
			(*into)[n.Content[i].Value] = texts
		}
	default:
		return fmt.Errorf("a member of type %T cannot be read", into)
	}
	return nil
}

func textList(n *yaml.Node) ([]string, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("expected a list of texts, got %s", describe(n))
	}
	var list []string
	for _, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || item.Tag != "!!str" {
			return nil, fmt.Errorf("expected text in the list, got %s; put it in quotes", describe(item))
		}
		list = append(list, item.Value)
	}
	return list, nil
}

// makeRecordsAbsolute does for the paths in records what makeAbsolute does for
// settings.
func makeRecordsAbsolute(list reflect.Value, dir string) {
	for i := range list.Len() {
		record := list.Index(i)
		for j := range record.NumField() {
			if t := record.Type().Field(j); t.Tag.Get("kind") == "path" {
				makeAbsolute(field{Value: record.Field(j)}, dir)
			}
		}
	}
}

// parseRecords takes what records returned.
func parseRecords(t reflect.Type, raw any) (reflect.Value, error) {
	if reflect.TypeOf(raw) != t {
		return reflect.Value{}, fmt.Errorf("expected a list in the configuration file, got %T", raw)
	}
	return reflect.ValueOf(raw), nil
}
