package clients

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// everywhere are programs of Debian's essential packages, and go itself, which
// nobody has to install for the tests.
var everywhere = []string{"bash", "cat", "cp", "echo", "env", "false", "go", "grep", "id", "sh", "sleep", "stty", "tar", "true"}

// programArguments says which arguments of a function name programs: from the
// first of two numbers up to, not including, the second.
var programArguments = map[string][2]int{
	"exec.Command":        {0, 1},
	"exec.CommandContext": {1, 2},
	"exec.LookPath":       {0, 1},
	"testenv.Need":        {1, 2},
	"g.command":           {1, 2}, // these three are of this package
	"firstLine":           {1, 2},
	"needs":               {0, 99},
}

// TestDependencies finds each program that a test names, and looks whether
// .ci/deps installs it: on a fresh machine it would be missing otherwise.
func TestDependencies(t *testing.T) {
	root := filepath.Join("..", "..")
	installed := installedPrograms(t, filepath.Join(root, ".ci", "deps"))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isTestCode(path) {
			return err
		}
		for _, program := range programsIn(t, path) {
			ours := strings.Contains(program, "/") || strings.HasPrefix(program, "stagedoor")
			if !ours && !slices.Contains(everywhere, program) && !installed[program] {
				t.Errorf("%s needs %s, which .ci/deps does not install", path, program)
			}
		}
		return nil
	})
	mustDo(t, err)
}

func isTestCode(path string) bool {
	return strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".go") && strings.Contains(path, "internal/testenv")
}

// installedPrograms are the names that .ci/deps looks for.
func installedPrograms(t *testing.T, file string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(file)
	mustDo(t, err)
	found := map[string]bool{"npm": true} // comes with node
	for _, m := range regexp.MustCompile(`\[([A-Za-z0-9-]+)\]=|command -v ([a-z]+)`).FindAllStringSubmatch(string(data), -1) {
		found[m[1]+m[2]] = true
	}
	return found
}

// programsIn are the literal arguments of calls that run or need programs.
func programsIn(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	mustDo(t, err)
	var programs []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		bounds, ok := programArguments[calledName(call)]
		if !ok {
			return true
		}
		for i := bounds[0]; i < min(bounds[1], len(call.Args)); i++ {
			if lit, ok := call.Args[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				name, err := strconv.Unquote(lit.Value)
				mustDo(t, err)
				programs = append(programs, name)
			}
		}
		return true
	})
	return programs
}

// calledName is a function's name, with what is before its dot.
func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}
