package agent

import (
	"path"
	"runtime"
	"slices"
	"strings"
)

// defaultPath is what sshd gives to a user without a PATH, with the directories that only root searches elsewhere.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// alwaysAccepted are the variables that every guest may set: language and looks.
var alwaysAccepted = []string{"LANG", "LANGUAGE", "LC_*", "TERM", "COLORTERM"}

// neverAccepted are variables that make a loader, a shell or an interpreter run or read something of the guest's choice, or that
// say who and where the user is. A guest with a forced command or without exec must not get around it by these, so no
// configuration lets them in.
var neverAccepted = []string{
	"LD_*", "DYLD_*", "_RLD*", "LIBPATH", "SHLIB_PATH", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "MALLOC_*", "LOCPATH", "NLSPATH",
	"HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_*", "TZDIR", "TERMINFO", "TERMINFO_DIRS", "TERMCAP", "TERMPATH",
	"BASH_*", "BASHOPTS", "SHELLOPTS", "ENV", "IFS", "PS0", "PS4", "PROMPT_COMMAND", "CDPATH", "GLOBIGNORE", "FPATH", "ZDOTDIR",
	"PERL5*", "PERLLIB", "PYTHON*", "RUBYLIB", "RUBYOPT", "NODE_*", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "LUA_*",
	"EDITOR", "VISUAL", "PAGER", "LESSOPEN", "LESSCLOSE", "LESSKEY*", "MANPAGER", "BROWSER",
	"GIT_SSH*", "GIT_EXEC_PATH", "GIT_CONFIG*", "GIT_PAGER", "GIT_EDITOR", "GIT_ASKPASS", "GIT_PROXY_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_DIR",
	"RSYNC_RSH", "RSYNC_CONNECT_PROG", "CVS_RSH", "TAR_OPTIONS", "TMPDIR", "TMPPREFIX",
	"COMSPEC", "PATHEXT", "PSMODULEPATH", "SYSTEMROOT", "WINDIR", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "COR_*", "CORECLR_*", "DOTNET_*",
	"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "MAIL", "SSH_*", "SUDO_*", "STAGEDOOR*",
}

// environ is a list of variables, in the form of os.Environ.
type environ []string

// get returns the value of a variable, "" if it is not set.
func (e environ) get(name string) string {
	for _, entry := range slices.Backward(e) {
		if n, value, _ := strings.Cut(entry, "="); oneCase(n) == oneCase(name) {
			return value
		}
	}
	return ""
}

// set gives a variable a value.
func (e *environ) set(name, value string) {
	e.remove(name)
	*e = append(*e, name+"="+value)
}

// setDefault gives a variable a value unless it has one.
func (e *environ) setDefault(name, value string) {
	if e.get(name) == "" {
		e.set(name, value)
	}
}

// remove drops the variables whose name matches a pattern.
func (e *environ) remove(pattern string) {
	*e = slices.DeleteFunc(*e, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return matchName(pattern, name)
	})
}

// taskEnviron returns what of the task's environment is passed on: everything but Stagedoor's own variables, which hold the
// token, those by which a job gets ID tokens from its CI provider, and those that described the terminal, connection or shell that the agent was started from.
func taskEnviron(env []string) environ {
	e := slices.Clone(environ(env))
	for _, name := range []string{
		"STAGEDOOR*", "ACTIONS_ID_TOKEN_REQUEST_*", "CIRCLE_OIDC_TOKEN*", "BUILDKITE_AGENT_ACCESS_TOKEN", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SSH_ORIGINAL_COMMAND",
		"COLUMNS", "LINES", "TERMCAP", "TMUX", "TMUX_PANE", "STY", "WINDOW", "SHLVL", "OLDPWD", "_",
	} {
		e.remove(name)
	}
	return e
}

// guestEnv holds the variables a guest has set by env requests.
type guestEnv struct {
	patterns  []string // accepted besides alwaysAccepted
	variables int      // that may still be set
	bytes     int      // that they may still hold
	vars      environ
}

// set accepts a variable or says that it does not.
func (g *guestEnv) set(name, value string) bool {
	size := len(name) + len(value)
	if g.variables < 1 || g.bytes < size || !g.accepts(name) || !harmless(value) {
		return false
	}
	g.variables--
	g.bytes -= size
	g.vars.set(name, value)
	return true
}

func (g *guestEnv) accepts(name string) bool {
	return validName(name) && !matchAny(neverAccepted, name) && (matchAny(alwaysAccepted, name) || matchAny(g.patterns, name))
}

func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// harmless refuses what execve(2) cannot pass on and what old shells take for a function to define.
func harmless(value string) bool {
	return !strings.ContainsRune(value, 0) && !strings.HasPrefix(value, "()")
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchName(p, name) })
}

func matchName(pattern, name string) bool {
	ok, err := path.Match(oneCase(pattern), oneCase(name))
	return ok && err == nil
}

// oneCase makes the same of names that mean the same variable: on Windows, whatever their case.
func oneCase(name string) string {
	if runtime.GOOS == "windows" {
		return strings.ToUpper(name)
	}
	return name
}
