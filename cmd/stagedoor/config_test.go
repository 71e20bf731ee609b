package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// loadText loads a configuration file with the given text, and flags.
func loadText(t *testing.T, text string, flags ...string) (*Config, *report) {
	t.Helper()
	file := write(t, filepath.Join(t.TempDir(), "c.yaml"), text)
	return source{File: file, Flags: parseFlags(t, flags...)}.load()
}

func parseFlags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	f := pflag.NewFlagSet("gateway", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	addConfigFlags(f, func(string) bool { return true })
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

// mistakesIn returns the mistakes without the directory of the file.
func mistakesIn(r *report) string {
	var lines []string
	for _, m := range r.all() {
		lines = append(lines, strings.ReplaceAll(m.Error(), filepath.Dir(r.file)+"/", ""))
	}
	return strings.Join(lines, "\n")
}

// Each mistake is told with its line. What follows from another is not told.
func TestMistakesHaveLines(t *testing.T) {
	const valid = "domain: a.example.com\n"
	for _, test := range []struct{ name, text, want string }{
		{"nothing wrong", valid, ""},
		{"sections without keys", valid + "ssh:\nlimits:\n", ""},
		{"keys without values keep their defaults", valid + "ssh:\n  host_keys:\n  listen:\n", ""},
		{"an anchor", "domain: &d a.example.com\nssh: {address: 'b.example.com:22'}\nhosts: {audience: *d}\n", ""},
		{"off", valid + "ssh: {listen: off}\nprivate: {listen: ''}\n", ""},
		{"no time limit", valid + "limits: {session_time: 0s}\ndrain: {deadline: 0}\n", ""},

		{"a file without anything", "", `c.yaml: domain: there is neither a domain nor a certificate`},
		{"a typing error", "domian: a.example.com", "c.yaml:1: domian: there is no such key; did you mean domain?"},
		{"a key of another section", valid + "drain:\n  lame_duck: 1s\n  level: info", "c.yaml:4: drain.level: there is no such key; did you mean log.level?"},
		{"a key of nobody's", valid + "frobnicate: 1", "c.yaml:2: frobnicate: there is no such key; remove it"},
		{"a control character", valid + "\"a\\e[2J\": 1", `c.yaml:2: "a\x1b[2J": there is no such key`},
		{"a key twice", valid + "log:\n  level: info\n  level: warn", "c.yaml:4: log.level: it is set a second time; the first is in line 3: keep one"},
		{"a section twice", valid + "log:\n  level: info\nlog:\n  format: json", "c.yaml:4: log: it is set a second time"},
		{"a list as key", valid + "? [a, b]\n: 1", "c.yaml:2: a key must be plain text"},
		{"a merge", valid + "log:\n  <<: {level: info}\n", "c.yaml:3: log.<<: there is no such key"},
		{"a list where a section belongs", valid + "ssh: [listen]", "c.yaml:2: ssh: expected keys with values below it, got a list"},
		{"a list as a whole", "- domain", "c.yaml:1: expected keys with values below it, got a list"},
		{"a section where text belongs", "domain: {name: a}", "c.yaml:1: domain: expected one value, got keys with values"},
		{"a number where text belongs", valid + "log: {level: 3}", `c.yaml:2: log.level: expected text, got the number "3"; write "3"`},
		{"a truth value where text belongs", valid + "ssh:\n  listen: false", `c.yaml:3: ssh.listen: expected text, got the truth value "false"; write "false"`},
		{"text where a list belongs", valid + "ssh: {host_keys: a}", `c.yaml:2: ssh.host_keys: expected a list, got "a"; write [a, b]`},
		{"a number in a list", valid + "ssh:\n  host_keys:\n  - a\n  - 7", `c.yaml:5: ssh.host_keys: expected text in the list, got the number "7"`},
		{"nothing in a list", valid + "ssh:\n  host_keys:\n  -\n", "c.yaml:4: ssh.host_keys: expected text in the list, got nothing"},
		{"a fraction", valid + "limits: {auth_tries: 1.5}", `c.yaml:2: limits.auth_tries: expected a number, got the number "1.5"`},
		{"a huge number", valid + "limits: {auth_tries: 99999999999999999999}", "c.yaml:2: limits.auth_tries: "},
		{"zero", valid + "limits: {auth_tries: 0}", "c.yaml:2: limits.auth_tries: it must be more than 0"},
		{"a negative number", valid + "limits: {auth_tries: -1}", "c.yaml:2: limits.auth_tries: -1 is negative"},
		{"a duration without unit", valid + "drain: {deadline: 5}", `c.yaml:2: drain.deadline: "5" has no unit; write 5s, 5m or 5h`},
		{"a duration in days", valid + "drain: {deadline: 1d}", `c.yaml:2: drain.deadline: "1d" is not a duration; write for example 30s`},
		{"a negative duration", valid + "drain: {deadline: -5s}", "c.yaml:2: drain.deadline: -5s is negative"},
		{"no duration", valid + "limits: {host_grace: 0s}", "c.yaml:2: limits.host_grace: it must be more than 0s"},
		{"a size of another system", valid + "limits: {buffered_bytes: 1GB}", `c.yaml:2: limits.buffered_bytes: "1GB" is not a size; write for example 512MiB`},
		{"a size that overflows", valid + "limits: {buffered_bytes: 9999999TiB}", `c.yaml:2: limits.buffered_bytes: "9999999TiB" is not a size`},
		{"a negative size", valid + "limits: {buffered_bytes: -1MiB}", `c.yaml:2: limits.buffered_bytes: "-1MiB" is not a size`},
		{"not YAML", valid + "ssh:\n\tlisten: x", "c.yaml:3: this is not YAML: "},
		{"an open quote", valid + "log: {level: \"info}", "c.yaml"},
		{"two documents", valid + "---\ndomain: b.example.com", "c.yaml:2: a second document begins here"},

		{"a port alone", valid + "ssh: {listen: '22'}", `c.yaml:2: ssh.listen: "22": a port needs a colon before it: write :22`},
		{"a port that is none", valid + "ssh: {listen: ':ssh'}", `c.yaml:2: ssh.listen: ":ssh": the port is not a number`},
		{"a name to listen on", valid + "ssh: {listen: 'example.com:22'}", `c.yaml:2: ssh.listen: "example.com:22": listen on an IP address of this machine`},
		{"agents shut out", valid + "https: {listen: off}", "c.yaml:2: https.listen: it cannot be off"},
		{"an address with an option", valid + "ssh: {address: '-oX:22'}", `c.yaml:2: ssh.address: "-oX:22": `},
		{"an address without port", valid + "ssh: {address: a.example.com}", `c.yaml:2: ssh.address: "a.example.com": `},
		{"a URL as domain", "domain: https://a.example.com", `c.yaml:1: domain: "https://a.example.com" is not a domain name`},
		{"a certificate for no public name", "domain: localhost", `c.yaml:1: domain: no certificate can be fetched for "localhost"`},
		{"a certificate for an address", "domain: 192.0.2.1", `c.yaml:1: domain: no certificate can be fetched for "192.0.2.1"`},
		{"half a certificate", valid + "https:\n  certificate: a.pem", "c.yaml:2: https.key: the certificate needs its private key"},
		{"a key alone", valid + "https:\n  key: a.pem", "c.yaml:2: https.certificate: the key needs its certificate"},
		{"nothing for guests to type", "https: {certificate: a.pem, key: b.pem}", "c.yaml: ssh.address: nobody can tell what guests have to type"},
		{"an insecure authority", valid + "https:\n  acme: {directory: 'http://a/'}", `c.yaml:3: https.acme.directory: "http://a/" is not an https URL`},
		{"no mail address", valid + "https:\n  acme: {email: me}", `c.yaml:3: https.acme.email: "me" is not a mail address`},
		{"no audience", valid + "hosts: {audience: ''}", "c.yaml:2: hosts.audience: it is empty"},
		{"no permission", valid + "guests:\n  permissions:\n  - pty\n  - fly", `c.yaml:5: guests.permissions: "fly" is no permission; there are`},
		{"a weak algorithm", valid + "ssh:\n  extra_algorithms: [ecdh-sha2-nistp256, ssh-rsa]", `c.yaml:3: ssh.extra_algorithms: "ssh-rsa" cannot be added; there are`},
		{"no level", valid + "log: {level: INFO}", `c.yaml:2: log.level: unknown log level "INFO"; use one of debug`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, r := loadText(t, test.text)
			got := mistakesIn(r)
			if test.want == "" && got != "" || test.want != "" && (!strings.HasPrefix(got, test.want) || strings.Contains(got, "\n")) {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestFlagWinsOverEnvironmentOverFile(t *testing.T) {
	const text = "domain: file.example.com\nssh: {listen: ':1', host_keys: [file]}\nlimits: {auth_tries: 1, session_time: 1h, buffered_bytes: 1MiB}\n"
	t.Setenv("STAGEDOOR_SSH_LISTEN", ":2")
	t.Setenv("STAGEDOOR_LIMITS_AUTH_TRIES", "2")
	t.Setenv("STAGEDOOR_LIMITS_SESSION_TIME", "2h")
	t.Setenv("STAGEDOOR_SSH_HOST_KEYS", "env1, env2")
	t.Setenv("STAGEDOOR_DOMAIN", "") // as good as none
	c, r := loadText(t, text, "--limits-auth-tries=3", "--ssh-host-keys", "flag1", "--ssh-host-keys=flag2,flag3")
	if got := mistakesIn(r); got != "" {
		t.Fatal(got)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{filepath.Join(wd, "flag1"), filepath.Join(wd, "flag2"), filepath.Join(wd, "flag3")}
	for _, test := range []struct{ name, got, want any }{
		{"file", c.Domain, "file.example.com"},
		{"file, a size", c.Limits.BufferedBytes, Size(1 << 20)},
		{"environment", c.SSH.Listen, ":2"},
		{"environment, a duration", c.Limits.SessionTime, 2 * time.Hour},
		{"flag", c.Limits.AuthTries, 3},
		{"flag, a list", c.SSH.HostKeys, keys},
		{"default", c.HTTPS.Listen, ":443"},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, test.got, test.want)
		}
	}
}

// A mistake is named after the source that won.
func TestMistakesNameTheirSource(t *testing.T) {
	t.Setenv("STAGEDOOR_SSH_LISTEN", "22")
	t.Setenv("STAGEDOOR_LIMITS_AUTH_TRIES", "many")
	_, r := loadText(t, "domain: a.example.com\nssh:\n  listen: ':22'\n", "--drain-deadline=5", "--guests-permissions=fly,pty")
	for _, want := range []string{
		`STAGEDOOR_SSH_LISTEN: ssh.listen: "22": a port needs`,
		`STAGEDOOR_LIMITS_AUTH_TRIES: limits.auth_tries: "many" is not a whole number`,
		`--drain-deadline: drain.deadline: "5" has no unit`,
		`--guests-permissions: guests.permissions: "fly" is no permission`,
	} {
		if got := mistakesIn(r); !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	c, r := loadText(t, "domain: a.example.com\nstate_dir: state\nhosts: {token_keys: [/abs/key, rel/key]}\n")
	dir := filepath.Dir(r.file)
	if c.StateDir != filepath.Join(dir, "state") {
		t.Errorf("state_dir: %s", c.StateDir)
	}
	if want := []string{"/abs/key", filepath.Join(dir, "rel/key")}; !reflect.DeepEqual(c.Hosts.TokenKeys, want) {
		t.Errorf("token_keys: %v", c.Hosts.TokenKeys)
	}
}

func TestDefaultStateDir(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
	if dir, err := defaultStateDir(); err != nil || dir != "/var/lib/one" {
		t.Errorf("under systemd: %s, %v", dir, err)
	}
	t.Setenv("STATE_DIRECTORY", "")
	dir, err := defaultStateDir()
	if os.Geteuid() == 0 {
		if err != nil || dir != "/var/lib/stagedoor" {
			t.Errorf("as root: %s, %v", dir, err)
		}
		return
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "/home/me")
	if dir, err := defaultStateDir(); err != nil || dir != "/home/me/.local/state/stagedoor" {
		t.Errorf("as a user: %s, %v", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "/x")
	if dir, err := defaultStateDir(); err != nil || dir != "/x/stagedoor" {
		t.Errorf("with XDG_STATE_HOME: %s, %v", dir, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "64KiB": 64 << 10, "1 GiB": 1 << 30, "3TiB": 3 << 40} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s is shown as %s: %v", text, got, err)
		}
	}
	for _, text := range []string{"", "GiB", "1.5GiB", "1GB", "-1", "8388608TiB", "1KiBKiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

// exampleText is config.example.yaml, with the settings that are commented out
// in it switched on if all is set. Prose has a space after its hash.
func exampleText(t *testing.T, all bool) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot(t), "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !all {
		return string(data)
	}
	return regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`).ReplaceAllString(string(data), "$1$2")
}

// The example loads, and what it sets are the defaults.
func TestExampleStatesDefaults(t *testing.T) {
	got, r := loadText(t, exampleText(t, false))
	if text := mistakesIn(r); text != "" {
		t.Fatal(text)
	}
	want := DefaultConfig()
	want.Domain = "terminal.example.com" // the one that has no default and is needed
	for i, f := range fields(&want) {
		g := fields(got)[i]
		if !reflect.DeepEqual(g.Value.Interface(), f.Value.Interface()) {
			t.Errorf("%s: the example says %v, the default is %v", f.Key, g.Value, f.Value)
		}
		_, shown := r.lines[f.Key]
		if empty := f.Value.IsZero() && f.Value.Kind() != reflect.Int64; !shown && !empty && f.Key != "state_dir" {
			t.Errorf("%s has a default, and the example does not state it", f.Key)
		}
	}
}

// Every key is in the example, and the values shown for those that are commented
// out are valid.
func TestExampleHasEveryKey(t *testing.T) {
	_, r := loadText(t, exampleText(t, true))
	if text := mistakesIn(r); text != "" {
		t.Fatal(text)
	}
	for _, f := range fields(new(Config)) {
		if r.lines[f.Key] == 0 {
			t.Errorf("%s is not in config.example.yaml", f.Key)
		}
		if f.Help == "" {
			t.Errorf("--%s has no help", f.Flag())
		}
	}
}

// Whatever a file holds, loading ends, and a mistake stands on one line that a
// terminal can show.
func FuzzConfig(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("..", "..", "config.example.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	// Without its prose, which the fuzzer would spend its time on.
	f.Add(regexp.MustCompile(`(?m)^ *#.*\n|^\n`).ReplaceAll(data, nil))
	for _, seed := range []string{
		"", "domain: a.example.com", "a: &a [*a]", "ssh: &s {listen: *s}", "ssh: {host_keys: [&x a, *x, !!int 3]}", "? {a: b}\n: c",
		"limits: {auth_tries: 0x10, buffered_bytes: 1GiB, session_time: 1h}", "---\n---\n", "\"\\e]0;\": x", "%YAML 9.9\n---\n", "log: !!binary aGk=",
		"domain: !!float 1\nlog: {level: \"a\\nb\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReport("c.yaml")
		values := parseYAML(data, r)
		c := DefaultConfig()
		for _, f := range fields(&c) {
			raw, ok := values[f.Key]
			if !ok {
				continue
			}
			v, err := parse(f.Value.Type(), raw)
			if err != nil {
				t.Fatalf("%s passed as %v: %v", f.Key, raw, err)
			}
			f.Value.Set(v)
		}
		c.validate(r)
		for _, m := range r.all() {
			if strings.ContainsFunc(m.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("a mistake holds control characters: %q", m.Error())
			}
		}
	})
}
