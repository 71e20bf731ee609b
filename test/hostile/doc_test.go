package hostile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testsOf are the names of the tests in a package of this module.
func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	mustDo(t, err)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		mustDo(t, err)
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// TestTableNamesTests: whatever the package comment names exists.
func TestTableNamesTests(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	mustDo(t, err)
	row := regexp.MustCompile(`(?m)^//\t.{40}(.*)$`)
	tests := map[string][]string{}
	rows := row.FindAllStringSubmatch(string(source), -1)
	if len(rows) < 20 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, m := range rows {
		for part := range strings.SplitSeq(m[1], "; ") {
			dir, names, found := strings.Cut(part, ": ")
			if !found {
				dir, names = "test/hostile", part
			}
			if tests[dir] == nil {
				tests[dir] = testsOf(t, dir)
			}
			for name := range strings.SplitSeq(names, ", ") {
				if !named(name, tests[dir]) {
					t.Errorf("%s has no %s", dir, name)
				}
			}
		}
	}
}

// named reports whether one of the names matches a pattern.
func named(pattern string, names []string) bool {
	for _, name := range names {
		if ok, _ := filepath.Match(pattern, name); ok && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz")) {
			return true
		}
	}
	return false
}
