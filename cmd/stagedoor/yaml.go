package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/stagedoor/stagedoor/internal/typo"
)

// maxConfigFile is far beyond any configuration.
const maxConfigFile = 1 << 20

// schema says which keys a configuration file may have.
type schema struct {
	leaves   map[string]field
	sections map[string]bool
}

func newSchema() schema {
	var c Config
	s := schema{leaves: map[string]field{}, sections: map[string]bool{}}
	for _, f := range fields(&c) {
		s.leaves[f.Key] = f
		for key := f.Key; ; {
			i := strings.LastIndexByte(key, '.')
			if i < 0 {
				break
			}
			key = key[:i]
			s.sections[key] = true
		}
	}
	return s
}

// parseYAML reads a configuration file strictly. It returns the values of those
// keys that are right, as text, and reports everything else with its line.
func parseYAML(data []byte, r *report) map[string]any {
	values := map[string]any{}
	root := decodeDocument(data, r)
	if root == nil {
		r.partial = !r.ok()
		return values
	}
	w := &yamlWalker{schema: newSchema(), report: r, values: values}
	w.mapping(root, "")
	return values
}

// decodeDocument returns the root of the only document, nil when there is none
// or it cannot be read.
func decodeDocument(data []byte, r *report) *yaml.Node {
	if len(data) > maxConfigFile {
		r.addLine(0, "", "it is larger than %d bytes: this is no configuration", maxConfigFile)
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := d.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			addSyntaxError(r, err)
		}
		return nil
	}
	if err := d.Decode(&second); err == nil {
		r.addLine(second.Line, "", "a second document begins here: keep to one")
	} else if !errors.Is(err, io.EOF) {
		addSyntaxError(r, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func addSyntaxError(r *report, err error) {
	text, line := err.Error(), 0
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1])
	}
	r.addLine(line, "", "this is not YAML: %s (look at indentation, colons and quotes)", text)
}

// yamlWalker walks a document along the schema, so that its depth is bounded by
// the schema's and not by the document.
type yamlWalker struct {
	schema schema
	report *report
	values map[string]any
}

func (w *yamlWalker) mapping(n *yaml.Node, prefix string) {
	n = resolve(n)
	name := strings.TrimSuffix(prefix, ".")
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		w.report.partial = true
		w.report.addLine(n.Line, name, "expected keys with values below it, got %s", describe(n))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := first[key.Value]; twice {
			w.report.addLine(key.Line, prefix+key.Value, "it is set a second time; the first is in line %d: keep one", line)
			continue
		}
		first[key.Value] = key.Line
		w.entry(key, value, prefix+key.Value)
	}
}

func (w *yamlWalker) entry(key, value *yaml.Node, full string) {
	f, leaf := w.schema.leaves[full]
	switch {
	case key.Kind != yaml.ScalarNode, !leaf && !w.schema.sections[full]:
		w.unknown(key, full)
	case leaf:
		w.report.lines[full] = key.Line
		w.leaf(f, resolve(value))
	default:
		w.report.lines[full] = key.Line
		w.mapping(value, full+".")
	}
}

// unknown reports a key that does not exist, and the one that was probably
// meant.
func (w *yamlWalker) unknown(key *yaml.Node, full string) {
	w.report.partial = true
	if key.Kind != yaml.ScalarNode {
		w.report.addLine(key.Line, "", "a key must be plain text")
		return
	}
	full = quoteIfOdd(full)
	hint := "remove it"
	if meant := w.schema.closest(full); meant != "" {
		hint = "did you mean " + meant + "?"
	}
	w.report.addLine(key.Line, full, "there is no such key; %s", hint)
}

// quoteIfOdd keeps what is not the text of a key from reaching the terminal raw.
func quoteIfOdd(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	if q := strconv.QuoteToASCII(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func (w *yamlWalker) leaf(f field, n *yaml.Node) {
	if isNull(n) {
		return // a key whose value is commented out keeps its default
	}
	if f.Records {
		if list := w.records(f, n); list != nil {
			w.values[f.Key] = list
		}
		return
	}
	raw, where, err := any(nil), n, error(nil)
	if f.Value.Kind() == reflect.Slice {
		raw, where, err = w.list(f, n)
	} else {
		raw, err = scalar(f.Value.Type(), n)
	}
	if err == nil {
		_, err = parse(f.Value.Type(), raw)
	}
	if err != nil {
		w.report.addLine(where.Line, f.Key, "%v", err)
		return
	}
	w.values[f.Key] = raw
}

// list returns the items of a list, and the node that an error is about.
func (w *yamlWalker) list(f field, n *yaml.Node) ([]string, *yaml.Node, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, n, fmt.Errorf("expected a list, got %s; write [a, b], or each on a line of its own after a hyphen", describe(n))
	}
	items := make([]string, 0, len(n.Content))
	for i, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || item.Tag != "!!str" || strings.TrimSpace(item.Value) == "" {
			return nil, item, fmt.Errorf("expected text in the list, got %s", describe(item))
		}
		w.report.lines[fmt.Sprintf("%s[%d]", f.Key, i)] = item.Line
		items = append(items, item.Value)
	}
	return items, n, nil
}

// scalar returns the text of a value whose YAML type fits the setting's.
func scalar(t reflect.Type, n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", fmt.Errorf("expected one value, got %s", describe(n))
	}
	switch kind := kindName(t); {
	case kind == "text" && n.Tag != "!!str":
		return "", fmt.Errorf("expected text, got %s; write %q", describe(n), n.Value)
	case kind == "bool" && n.Tag != "!!bool":
		return "", fmt.Errorf("expected true or false, got %s", describe(n))
	case kind == "number" && n.Tag != "!!int":
		return "", fmt.Errorf("expected a number, got %s", describe(n))
	}
	return n.Value, nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// describe names what stands in the file without repeating much of it.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys with values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Value == "":
		return "nothing"
	}
	kind := map[string]string{"!!int": "the number ", "!!float": "the number ", "!!bool": "the truth value "}[n.Tag]
	return kind + strconv.QuoteToASCII(n.Value[:min(len(n.Value), 60)])
}

// closest returns the keys that a mistyped one probably stands for, or "".
func (s schema) closest(key string) string {
	var keys []string
	for _, f := range fields(new(Config)) {
		keys = append(keys, f.Key)
	}
	keys = append(keys, slices.Sorted(maps.Keys(s.sections))...)
	if meant := typo.Closest(key, keys); meant != "" {
		return meant
	}
	var elsewhere []string // the right name in the wrong section is as common a slip
	for _, k := range keys {
		if lastPart(k) == lastPart(key) {
			elsewhere = append(elsewhere, k)
		}
	}
	return strings.Join(elsewhere, " or ")
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }
