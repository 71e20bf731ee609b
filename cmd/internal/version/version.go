// Package version says what was built.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the release build: -ldflags '-X …/version.version=v1.2.3'.
var version string

// String is one line: the version, the commit it was built from where that is
// known, the Go release and the platform.
func String() string {
	v, commit := version, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = info.Main.Version
		}
		commit = revision(info)
	}
	if v == "" {
		v = "(devel)"
	}
	return fmt.Sprintf("%s%s %s %s/%s", v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func revision(info *debug.BuildInfo) string {
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ", modified"
		}
	}
	if commit == "" {
		return ""
	}
	return " (" + commit[:min(12, len(commit))] + dirty + ")"
}
