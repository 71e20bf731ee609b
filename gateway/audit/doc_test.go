package audit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// all is one of each event.
var all = []Event{
	GatewayStarted{}, GatewayEnded{},
	HostRegistered{}, HostRefused{}, HostEnded{},
	GuestSignedIn{}, GuestRefused{}, GuestDenied{}, GuestLeft{},
	SessionStarted{}, SessionEnded{}, ForwardOpened{}, ForwardClosed{}, ListenOpened{}, ListenClosed{},
	JumpOpened{}, JumpRefused{}, JumpClosed{},
	AdminKicked{}, AdminBlocked{}, AdminUnblocked{}, Lost{},
}

// TestAll finds every type of an event in the list above.
func TestAll(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "events.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, e := range all {
		listed[reflect.TypeOf(e).Name()] = true
	}
	for _, d := range f.Decls {
		m, ok := d.(*ast.FuncDecl)
		if !ok || m.Recv == nil {
			continue
		}
		if name := m.Recv.List[0].Type.(*ast.Ident).Name; !listed[name] {
			t.Errorf("%s is not in the list", name)
		}
	}
}

// fieldsOf are the names of an event's own fields in JSON.
func fieldsOf(typ reflect.Type, skip ...reflect.Type) []string {
	var names []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			if !slices.Contains(skip, f.Type) {
				names = append(names, fieldsOf(f.Type)...)
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

var (
	heading = regexp.MustCompile("^### `([a-z_.]+)`$")
	row     = regexp.MustCompile("^\\| `([a-z_]+)` \\|")
)

// TestDocumented compares docs/audit.md with the events: each has a section, whose
// table lists its fields in order. Those of a connection have a table at the top.
func TestDocumented(t *testing.T) {
	sections := map[string][]string{}
	var name string
	common := map[string]bool{} // events that say so
	for line := range strings.Lines(readFile(t, "../../docs/audit.md")) {
		line = strings.TrimSpace(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			name = m[1]
			sections[name] = nil
		} else if strings.HasPrefix(line, "#") {
			name = line
		} else if m := row.FindStringSubmatch(line); m != nil {
			sections[name] = append(sections[name], m[1])
		} else if strings.HasPrefix(line, "The connection, and") || line == "The connection." {
			common[name] = true
		}
	}
	who := reflect.TypeFor[Who]()
	if want := append([]string{"v", "time", "event"}, fieldsOf(who)...); !slices.Equal(sections["## Fields of every event"], want) {
		t.Errorf("fields of every event: %q, want %q", sections["## Fields of every event"], want)
	}
	delete(sections, "## Fields of every event")
	for _, e := range all {
		typ := reflect.TypeOf(e)
		got, ok := sections[e.event()]
		if want := fieldsOf(typ, who); !ok || !slices.Equal(got, want) {
			t.Errorf("%s: docs/audit.md lists %q (found: %v), want %q", e.event(), got, ok, want)
		}
		if _, is := typ.FieldByName("Who"); is != common[e.event()] {
			t.Errorf("%s: docs/audit.md says of the connection: %v, want %v", e.event(), common[e.event()], is)
		}
		delete(sections, e.event())
	}
	for extra := range maps.Keys(sections) {
		t.Errorf("docs/audit.md lists fields of %s, which is no event", extra)
	}
}
