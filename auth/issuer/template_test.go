package issuer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
)

func TestTemplate(t *testing.T) {
	for _, c := range []struct {
		template string
		claims   claims
		want     auth.TaskID
	}{
		{"gh-{run}-{job}", claims{"run": "123", "job": "456"}, "gh-123-456"},
		{"gh-{run}-{job}", claims{"run": "1-2", "job": "3"}, "gh-1_2d2-3"},
		{"gh-{run}.{job}", claims{"run": "1-2", "job": "3"}, "gh-1-2.3"},
		{"bk-{job}", claims{"job": "0184990a-477b-4fa8-9968-496074483cee"}, "bk-0184990a-477b-4fa8-9968-496074483cee"},
		{"gl.{path}.x", claims{"path": "Group/Proj_1"}, "gl._47roup_2f_50roj_5f1.x"},
		{"x-{a}--{b}", claims{"a": "ü", "b": true}, "x-_c3_bc--true"},
		{"x{oidc.example.com/job-id}", claims{"oidc.example.com/job-id": "7"}, "x7"},
		{"x{a}-{a}", claims{"a": "1"}, "x1-1"},
		{"x{a}", claims{"a": "_"}, "x_5f"},
	} {
		tmpl, err := ParseTemplate(c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if got, err := tmpl.execute(c.claims); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.template, got, err, c.want)
		}
	}
	exact, err := ParseTemplate("x{a}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exact.execute(claims{"a": strings.Repeat("a", 62)}); err != nil {
		t.Error(err)
	}
	for _, value := range []any{strings.Repeat("a", 63), strings.Repeat("A", 21), "", nil, 1.5, []any{"a"}, map[string]any{}, "\ufffd"} {
		if got, err := exact.execute(claims{"a": value}); err == nil {
			t.Errorf("%v: %q", value, got)
		}
	}
}

func TestTemplateRefused(t *testing.T) {
	for template, want := range map[string]string{
		"":                               "no claim in it",
		"task":                           "no claim in it",
		"{a}":                            "begin with text",
		"{a}-x":                          "begin with text",
		"x{a}{b}":                        "between two claims",
		"x{a}x{b}":                       "between two claims",
		"x{a}_{b}":                       "between two claims",
		"x-{a}-{b}{c}":                   "between two claims",
		"x{a":                            "written as {name}",
		"x{}":                            "written as {name}",
		"x{{a}}":                         "written as {name}",
		"x{a}}":                          "must be of a-z",
		"X{a}":                           "must be of a-z",
		"-{a}":                           "must be of a-z",
		"x {a}":                          "must be of a-z",
		"x/{a}":                          "must be of a-z",
		"ü{a}":                           "must be of a-z",
		strings.Repeat("x", 64) + "{a}":  "must be of a-z",
		"x" + strings.Repeat("-{a}", 17): "17 claims",
	} {
		if tmpl, err := ParseTemplate(template); err == nil || tmpl != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", template, err, want)
		}
	}
}

// FuzzTemplate looks for two jobs with one name.
func FuzzTemplate(f *testing.F) {
	f.Add("-", ".", "1", "2", "3", "1-2", "3", "4")
	f.Add("-", "-", "a-", "b", "c", "a", "-b", "c")
	f.Add(".", ".", "a.", "b", "c", "a", ".b", "c")
	f.Add("-x", ".", "a", "b", "c", "A", "b", "c")
	f.Add(".", "-", "a_2d", "b", "c", "a-", "b", "c")
	f.Add("a-a", "a-a", "a", "a", "a", "aa", "a", "a")
	f.Add(".-", "-.", "\x00", "\u212a", "k", "\u00e9", "e\u0301", "\xff")
	f.Fuzz(func(t *testing.T, s1, s2, a1, b1, c1, a2, b2, c2 string) {
		tmpl, err := ParseTemplate("x" + s1 + "{a}" + s1 + "{b}" + s2 + "{c}" + s2)
		if err != nil || len(tmpl.claims) != 3 {
			return
		}
		first, err := tmpl.execute(claims{"a": a1, "b": b1, "c": c1})
		if err != nil {
			return
		}
		if task, err := auth.ParseTaskID(string(first)); err != nil || task != first || !strings.HasPrefix(string(first), tmpl.Prefix()) {
			t.Errorf("%q is no name: %v", first, err)
		}
		second, err := tmpl.execute(claims{"a": a2, "b": b2, "c": c2})
		if err == nil && (first == second) != (a1 == a2 && b1 == b2 && c1 == c2) {
			t.Errorf("template with %q and %q: %q for %q and %q for %q", s1, s2, first, []string{a1, b1, c1}, second, []string{a2, b2, c2})
		}
	})
}

// All values of a small alphabet against each other, which finds what a fuzzer
// might not.
func TestTemplateInjective(t *testing.T) {
	var values []string
	alphabet := []string{"a", "A", "-", ".", "_", "2", "d", "é"}
	for _, a := range alphabet {
		values = append(values, a)
		for _, b := range alphabet {
			values = append(values, a+b)
		}
	}
	for _, template := range []string{"x{a}-{b}", "x{a}.{b}", "x-{a}.-{b}-", "x{a}a-{b}", "x{a}-a{b}a", "x_{a}_2d-{b}", "xa{a}..{b}.a"} {
		tmpl, err := ParseTemplate(template)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[auth.TaskID]string{}
		for _, a := range values {
			for _, b := range values {
				task, err := tmpl.execute(claims{"a": a, "b": b})
				if err != nil {
					t.Fatal(err)
				}
				this := fmt.Sprintf("%q and %q", a, b)
				if other, taken := seen[task]; taken {
					t.Fatalf("%s: %s is the name of %s and of %s", template, task, this, other)
				}
				seen[task] = this
			}
		}
	}
}
