package auth

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/typo"
)

// keyOptions is what stands before the key on an authorized_keys line.
type keyOptions struct {
	permissions  *ssh.Permissions
	gatewayPorts bool        // asked for, and not just not taken away
	authority    bool        // cert-authority: the key signs certificates and opens nothing by itself
	principals   []string    // of principals=; nil: a certificate has to name the task
	restrictive  bool        // from= was given
	from         addressList // valid if restrictive
	expires      time.Time   // zero: never
}

// admit holds the options that are decided at sign-in.
func (o *keyOptions) admit(remote netip.Addr, now time.Time) error {
	if o.restrictive && !o.from.permits(remote) {
		return fmt.Errorf("from= does not list %v", remote)
	}
	if !o.expires.IsZero() && now.After(o.expires) {
		return fmt.Errorf("expiry-time was %s", o.expires.Format(time.RFC3339))
	}
	return nil
}

// keyFlags are the options that switch an extension; with "no-" in front they
// switch it off.
var keyFlags = map[string]string{
	"pty":              PermitPTY,
	"port-forwarding":  PermitPortForwarding,
	"agent-forwarding": PermitAgentForwarding,
	"x11-forwarding":   PermitX11Forwarding,
	"gateway-ports":    PermitGatewayPorts, // not of sshd, where it is for its configuration alone
}

// restricted is what "restrict" leaves: sshd's takes away all but commands, and
// promises to do so with powers yet to be invented.
var restricted = []string{PermitExec, PermitSFTP}

// parse reads options up to the first white space outside of quotes, and
// returns what follows. They apply in order, so "restrict,pty" gives a PTY and
// "pty,restrict" does not; names are not case-sensitive. All as in sshd.
func (o *keyOptions) parse(s string) (rest string, err error) {
	o.permissions = FullPermissions()
	for s != "" && !isBlank(s[0]) {
		if s[0] == ',' { // one too many is no mistake to sshd
			s = s[1:]
			continue
		}
		var option keyOption
		option, s, err = cutOption(s)
		if err != nil {
			return "", err
		}
		if err := o.apply(option); err != nil {
			return "", err
		}
	}
	return strings.TrimLeft(s, " \t"), nil
}

// A keyOption is one option as written: name, or name="value".
type keyOption struct {
	name   string // lower case
	text   string // the name as it is written
	value  string
	valued bool
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// cutOption splits off the first option. In a value, \" stands for a quote, and
// a backslash before anything else for itself.
func cutOption(s string) (o keyOption, rest string, err error) {
	end := strings.IndexAny(s, "=, \t")
	if end < 0 {
		end = len(s)
	}
	o.text = s[:end]
	o.name = strings.ToLower(o.text)
	rest = s[end:]
	if o.name == "" || strings.Contains(o.name, `"`) {
		return o, "", errors.New("it begins with a quote, which is no option and no key type")
	}
	if !strings.HasPrefix(rest, "=") {
		return o, rest, nil
	}
	o.valued = true
	if !strings.HasPrefix(rest, `="`) {
		return o, "", fmt.Errorf("option %s: its value must be in double quotes", quoteWord(o.text))
	}
	o.value, rest, err = dequote(rest[len(`="`):])
	if err != nil {
		return o, "", fmt.Errorf("option %s: %w", quoteWord(o.text), err)
	}
	if rest != "" && rest[0] != ',' && !isBlank(rest[0]) {
		return o, "", fmt.Errorf("option %s: a comma is missing after its value", quoteWord(o.text))
	}
	return o, rest, nil
}

func dequote(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("the closing quote is missing")
}

// apply acts upon one option.
func (o *keyOptions) apply(option keyOption) error {
	if handle, ok := valuedOptions[option.name]; ok {
		if !option.valued {
			return fmt.Errorf("option %q needs a value: %s=\"…\"", option.name, option.name)
		}
		if err := handle(o, option.value); err != nil {
			return fmt.Errorf("option %q: %w", option.name, err)
		}
		return nil
	}
	if option.valued {
		return unknownOption(option.text + "=")
	}
	return o.applyFlag(option)
}

func (o *keyOptions) applyFlag(option keyOption) error {
	name := option.name
	plain, off := strings.CutPrefix(name, "no-")
	if extension, ok := keyFlags[plain]; ok {
		o.set(extension, !off)
		if extension == PermitGatewayPorts {
			o.gatewayPorts = !off
		}
		return nil
	}
	switch {
	case name == "restrict":
		o.restrict()
	case plain == "touch-required":
		o.set(noTouchRequired, off)
	case plain == "user-rc", name == "no-verify-required":
	case name == "verify-required":
		return errors.New("option \"verify-required\" is not supported: signatures are not checked for the PIN")
	case name == "cert-authority":
		o.authority = true
	default:
		return unknownOption(option.text)
	}
	return nil
}

func unknownOption(written string) error {
	meant := ""
	if name := closestOption(strings.ToLower(strings.TrimSuffix(written, "="))); name != "" {
		meant = fmt.Sprintf("; did you mean %s?", name)
	}
	return fmt.Errorf("unknown option %s%s", quoteWord(written), meant)
}

// closestOption returns the option that a mistyped one stands for, if one differs
// in no more than two letters.
func closestOption(name string) string {
	names := []string{"cert-authority", "restrict", "no-touch-required"}
	names = append(names, "command", "expiry-time", "from", "permitlisten", "permitopen", "principals")
	for _, flag := range slices.Sorted(maps.Keys(keyFlags)) {
		names = append(names, flag, "no-"+flag)
	}
	if slices.Contains(names, name) { // to which a value was given
		return ""
	}
	return typo.Closest(name, names)
}

func (o *keyOptions) set(extension string, on bool) {
	if on {
		o.permissions.Extensions[extension] = ""
	} else {
		delete(o.permissions.Extensions, extension)
	}
}

func (o *keyOptions) restrict() {
	o.gatewayPorts = false
	for _, name := range permissionNames {
		o.set(name, false)
	}
	for _, name := range restricted {
		o.set(name, true)
	}
}

// valuedOptions are the options that have a value.
var valuedOptions = map[string]func(o *keyOptions, value string) error{
	"command":      (*keyOptions).command,
	"from":         (*keyOptions).fromList,
	"expiry-time":  (*keyOptions).expiryTime,
	"permitopen":   (*keyOptions).permitOpen,
	"permitlisten": (*keyOptions).permitListen,
	"tunnel":       func(*keyOptions, string) error { return nil },
	"environment": func(*keyOptions, string) error {
		return errors.New("not supported: a guest's key may not set the environment of the task")
	},
	"principals": (*keyOptions).principalList,
}

func (o *keyOptions) command(value string) error {
	if _, again := o.permissions.CriticalOptions[ForceCommand]; again {
		return errors.New("given twice")
	}
	// An empty command is easily taken for none.
	if strings.TrimSpace(value) == "" {
		return errors.New("empty: to refuse commands write command=\"/bin/false\"")
	}
	o.permissions.CriticalOptions[ForceCommand] = value
	return nil
}

func (o *keyOptions) fromList(value string) (err error) {
	if o.restrictive {
		return errors.New("given twice")
	}
	o.restrictive = true
	o.from, err = parseAddressList(value)
	return err
}

// principalList keeps an empty list apart from none: sshd refuses it.
func (o *keyOptions) principalList(value string) error {
	if o.principals != nil {
		return errors.New("given twice")
	}
	for name := range strings.SplitSeq(value, ",") {
		if name == "" {
			return errors.New("a name is empty: write principals=\"alice,bob\"")
		}
		o.principals = append(o.principals, name)
	}
	return nil
}

// expiryTime keeps the earliest when it is given twice.
func (o *keyOptions) expiryTime(value string) error {
	t, err := parseExpiryTime(value)
	if err != nil {
		return err
	}
	if o.expires.IsZero() || t.Before(o.expires) {
		o.expires = t
	}
	return nil
}

// parseExpiryTime reads YYYYMMDD[HHMM[SS]], in local time unless Z or UTC
// follows.
func parseExpiryTime(value string) (time.Time, error) {
	digits, zone := value, time.Local
	for _, suffix := range []string{"Z", "UTC"} {
		if n := len(value) - len(suffix); n > 0 && strings.EqualFold(value[n:], suffix) {
			digits, zone = value[:n], time.UTC
		}
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) {
			continue
		}
		if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.32q is not a time: write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z for UTC", value)
}

func (o *keyOptions) permitOpen(value string) error {
	return o.addForward(PermitOpen, value, false)
}

func (o *keyOptions) permitListen(value string) error {
	return o.addForward(PermitListen, strings.ToLower(value), true)
}

func (o *keyOptions) addForward(option, value string, bare bool) error {
	entry, err := parseForward(value, bare)
	if err != nil {
		return err
	}
	if list, ok := o.permissions.CriticalOptions[option]; ok {
		entry = list + "," + entry
	}
	o.permissions.CriticalOptions[option] = entry
	return nil
}
