package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/stagedoor/stagedoor/gateway/audit"
)

// source is where a configuration comes from. It can be loaded again and again.
type source struct {
	File      string         // empty: none
	Flags     *pflag.FlagSet // made by addConfigFlags; nil: none
	Installed string         // see orInstalled; empty: nowhere
	Strict    bool           // STAGEDOOR_* variables that are no setting are mistakes
}

// installedConfig is where a gateway that is installed as a service has its
// configuration (docs/operate.md).
const installedConfig = "/etc/stagedoor/gateway.yaml"

// orInstalled is s or, when neither a file nor a state directory was named, the
// installed gateway's if that is there for this user to read: what it says may
// keep a token that it would refuse from being minted.
func (s source) orInstalled() source {
	named := s.Flags != nil && s.Flags.Changed("state-dir") || os.Getenv("STAGEDOOR_STATE_DIR") != ""
	if s.File != "" || s.Installed == "" || named {
		return s
	}
	f, err := os.Open(s.Installed)
	if err != nil {
		return s
	}
	f.Close()
	s.File = s.Installed
	return s
}

// addConfigFlags adds a flag for every setting whose key pick accepts.
func addConfigFlags(flags *pflag.FlagSet, pick func(key string) bool) {
	defaults := DefaultConfig()
	for _, f := range fields(&defaults) {
		if !pick(f.Key) || f.Records {
			continue
		}
		flags.Var(&settingFlag{kind: kindName(f.Value.Type()), text: show(f.Value.Interface())}, f.Flag(), f.Help)
		if kindName(f.Value.Type()) == "bool" {
			flags.Lookup(f.Flag()).NoOptDefVal = "true"
		}
	}
}

// settingFlag takes any text, which load reads later, so that mistakes in flags
// are told along with all others.
type settingFlag struct {
	kind, text string
	given      bool
}

// Type is the word for the value in the help.
func (f *settingFlag) Type() string { return f.kind }

// String returns the text.
func (f *settingFlag) String() string { return f.text }

// Set takes a text. A list may be given in several flags.
func (f *settingFlag) Set(s string) error {
	if f.kind == "list" && f.given {
		s = f.text + "," + s
	}
	f.text, f.given = s, true
	return nil
}

// load reads the settings: flags before environment before file before defaults.
// The Config is complete but for what the report says is wrong.
func (s source) load() (*Config, *report) {
	r := newReport(s.File)
	values := viper.New()
	if s.File != "" {
		data := readConfigFile(s.File, r)
		r.partial = data == nil
		if data != nil {
			if err := values.MergeConfigMap(nest(parseYAML(data, r))); err != nil {
				r.addLine(0, "", "%v", err)
			}
		}
	}
	c := DefaultConfig()
	for _, f := range fields(&c) {
		s.bind(values, f, r)
		s.set(values, f, r)
	}
	c.validate(r)
	if s.Strict {
		validateVariables(r)
	}
	return &c, r
}

// readConfigFile returns nil when the file cannot be used.
func readConfigFile(path string, r *report) []byte {
	f, err := os.Open(path)
	if err != nil {
		r.addLine(0, "", "%s", openHint(err))
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		r.addLine(0, "", "%v", err)
		return nil
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o002 != 0 {
		r.addLine(0, "", "every user of this machine can change it, and so decide who may enter: run chmod o-w %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		r.addLine(0, "", "%v", err)
		return nil
	}
	return data
}

// openHint says why a file cannot be read and what to do, without its name.
func openHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file: create it or correct the name"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not read it: change its owner or mode, or run as another user"
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return err.Error()
}

// nest turns {"ssh.listen": v} into {"ssh": {"listen": v}}, as viper keeps it.
func nest(values map[string]any) map[string]any {
	root := map[string]any{}
	for key, value := range values {
		m := root
		parts := strings.Split(key, ".")
		for _, part := range parts[:len(parts)-1] {
			next, ok := m[part].(map[string]any)
			if !ok {
				next = map[string]any{}
				m[part] = next
			}
			m = next
		}
		m[parts[len(parts)-1]] = value
	}
	return root
}

// bind tells viper the flag and variable of a setting, and the report which of
// them was used.
func (s source) bind(values *viper.Viper, f field, r *report) {
	if f.Records {
		return
	}
	if os.Getenv(f.Env()) != "" {
		r.outside[f.Key] = f.Env()
	}
	values.BindEnv(f.Key, f.Env()) // fails only without a key
	if s.Flags == nil {
		return
	}
	if flag := s.Flags.Lookup(f.Flag()); flag != nil && flag.Changed {
		values.BindPFlag(f.Key, flag)
		r.outside[f.Key] = "--" + f.Flag()
	}
}

// set stores the value that wins, if there is one, in the Config that f belongs
// to.
func (s source) set(values *viper.Viper, f field, r *report) {
	raw := values.Get(f.Key)
	if raw == nil {
		return
	}
	v, err := parse(f.Value.Type(), raw)
	if err != nil {
		r.add(f.Key, "%v", err)
		return
	}
	f.Value.Set(v)
	if f.Records {
		makeRecordsAbsolute(f.Value, s.directory(true))
	}
	if f.Path {
		makeAbsolute(f, s.directory(r.outside[f.Key] == ""))
	}
}

// directory is what paths are relative to: in a configuration file the file's
// own directory, so that it means the same wherever the program was started.
func (s source) directory(inFile bool) string {
	if inFile && s.File != "" {
		return filepath.Dir(s.File)
	}
	return "."
}

func makeAbsolute(f field, dir string) {
	resolve := func(path string) string {
		if off(path) || path == audit.Stdout || isURL(path) || filepath.IsAbs(path) {
			return path
		}
		path = filepath.Join(dir, path)
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
		return path
	}
	if list, ok := f.Value.Interface().([]string); ok {
		for i := range list {
			list[i] = resolve(list[i])
		}
		return
	}
	f.Value.SetString(resolve(f.Value.String()))
}
