package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestMistakesInAuthorities: each is told with its line, and none lets anybody in.
func TestMistakesInAuthorities(t *testing.T) {
	dir := t.TempDir()
	key := testenv.NewKey(t, dir, "user_ca")
	ca := write(t, filepath.Join(dir, "ca.pub"), key.Line+"\n")
	open := write(t, filepath.Join(dir, "open.pub"), key.Line+"\n")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	options := write(t, filepath.Join(dir, "options.pub"), "cert-authority "+key.Line+"\n")
	for text, want := range map[string]string{
		"{keys: [" + ca + "]}": "",
		"{keys: [" + ca + "], tasks: {ops: ['*'], web: [web-*, docs]}}": "",
		"{}":                                        "keys is missing",
		"{keys: []}":                                "keys is missing",
		"{keys: [none.pub]}":                        "there is no such file",
		"{keys: [" + key.File + "]}":                "is a private key: give its public half",
		"{keys: [" + open + "]}":                    "run chmod go-w",
		"{keys: [" + options + "]}":                 "options.pub:1: options do not count",
		"{keys: [" + ca + "], tasks: {}}":           "tasks is empty",
		"{keys: [" + ca + "], tasks: {a: []}}":      `"a" opens no task`,
		"{keys: [" + ca + "], tasks: {a: [A]}}":     `"A" is no pattern`,
		"{keys: [" + ca + "], tasks: {'*': ['*']}}": `"*" is no principal`,
		"{keys: [" + ca + "], tasks: [a]}":          "guests.authorities[0].tasks: expected names with a list",
		"{keys: " + ca + "}":                        "guests.authorities[0].keys: expected a list of texts",
		"{key: [" + ca + "]}":                       "there are keys, tasks",
	} {
		c, r := loadText(t, "domain: a.example.com\nguests:\n  authorities:\n  - "+text+"\n")
		var made []auth.Authorizer
		if r.ok() {
			made = c.authorities(r)
		}
		got := mistakesIn(r)
		if (want == "") != (got == "") || !strings.Contains(got, want) || got != "" && !strings.Contains(got, "c.yaml:4: ") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		if (len(made) == 1) != (want == "") {
			t.Errorf("%s: %d authorities", text, len(made))
		}
	}
}
