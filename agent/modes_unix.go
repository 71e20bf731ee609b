//go:build unix

package agent

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Opcodes of RFC 4254 §8 that are no characters and no flags.
const (
	opEnd          = 0
	opInputSpeed   = 128
	opOutputSpeed  = 129
	opFirstUnknown = 160 // from here on a mode has no known length, so decoding stops
)

// disabledChar is how the wire says that a control character is off.
const disabledChar = 255

// mode is one encoded terminal mode.
type mode struct {
	op    byte
	value uint32
}

// decodeModes reads encoded terminal modes. What comes after the end, after an opcode of unknown length or after a cut is not
// for us to guess.
func decodeModes(b []byte) (modes []mode) {
	for len(b) >= 5 && b[0] != opEnd && b[0] < opFirstUnknown {
		modes = append(modes, mode{b[0], binary.BigEndian.Uint32(b[1:])})
		b = b[5:]
	}
	return modes
}

// setModes applies encoded terminal modes. Those that this system lacks are left out.
func (t *terminal) setModes(encoded []byte) error {
	modes := decodeModes(encoded)
	if len(modes) == 0 {
		return nil
	}
	return t.control(func(fd int) error {
		termios, err := unix.IoctlGetTermios(fd, getTermios)
		if err != nil {
			return err
		}
		for _, m := range modes {
			m.apply(termios)
		}
		return unix.IoctlSetTermios(fd, setTermios, termios)
	})
}

func (m mode) apply(t *unix.Termios) {
	if i, ok := charModes[m.op]; ok {
		t.Cc[i] = byte(m.value)
		if m.value == disabledChar {
			t.Cc[i] = disabledCc
		}
		return
	}
	for _, table := range []struct {
		flags *tcflag
		bits  map[byte]tcflag
	}{{&t.Iflag, inputModes}, {&t.Lflag, localModes}, {&t.Oflag, outputModes}} {
		if bit, ok := table.bits[m.op]; ok {
			setFlag(table.flags, bit, m.value != 0)
			return
		}
	}
	m.applyControl(t)
}

// applyControl applies the modes of the line itself. CS7 and CS8 are two values of one field.
func (m mode) applyControl(t *unix.Termios) {
	switch m.op {
	case 90:
		setSize(t, unix.CS7, m.value != 0)
	case 91:
		setSize(t, unix.CS8, m.value != 0)
	case 92:
		setFlag(&t.Cflag, unix.PARENB, m.value != 0)
	case 93:
		setFlag(&t.Cflag, unix.PARODD, m.value != 0)
	case opInputSpeed:
		setInputSpeed(t, m.value)
	case opOutputSpeed:
		setOutputSpeed(t, m.value)
	}
}

func setSize(t *unix.Termios, size tcflag, on bool) {
	if on {
		t.Cflag = t.Cflag&^unix.CSIZE | size
	}
}

func setFlag(flags *tcflag, bit tcflag, on bool) {
	if on {
		*flags |= bit
	} else {
		*flags &^= bit
	}
}

// The tables of RFC 4254 §8, less what differs between systems.

var charModes = merge(map[byte]int{
	1:  unix.VINTR,
	2:  unix.VQUIT,
	3:  unix.VERASE,
	4:  unix.VKILL,
	5:  unix.VEOF,
	6:  unix.VEOL,
	7:  unix.VEOL2,
	8:  unix.VSTART,
	9:  unix.VSTOP,
	10: unix.VSUSP,
	12: unix.VREPRINT,
	13: unix.VWERASE,
	14: unix.VLNEXT,
	18: unix.VDISCARD,
}, systemChars)

var inputModes = merge(map[byte]tcflag{
	30: unix.IGNPAR,
	31: unix.PARMRK,
	32: unix.INPCK,
	33: unix.ISTRIP,
	34: unix.INLCR,
	35: unix.IGNCR,
	36: unix.ICRNL,
	38: unix.IXON,
	39: unix.IXANY,
	40: unix.IXOFF,
	41: unix.IMAXBEL,
	42: unix.IUTF8, // RFC 8160
}, systemInput)

var localModes = merge(map[byte]tcflag{
	50: unix.ISIG,
	51: unix.ICANON,
	53: unix.ECHO,
	54: unix.ECHOE,
	55: unix.ECHOK,
	56: unix.ECHONL,
	57: unix.NOFLSH,
	58: unix.TOSTOP,
	59: unix.IEXTEN,
	60: unix.ECHOCTL,
	61: unix.ECHOKE,
	62: unix.PENDIN,
}, systemLocal)

var outputModes = merge(map[byte]tcflag{
	70: unix.OPOST,
	72: unix.ONLCR,
	73: unix.OCRNL,
	74: unix.ONOCR,
	75: unix.ONLRET,
}, systemOutput)

func merge[V any](a, b map[byte]V) map[byte]V {
	for k, v := range b {
		a[k] = v
	}
	return a
}
