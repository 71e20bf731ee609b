package agent

import "golang.org/x/sys/unix"

type tcflag = uint32

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
	disabledCc = 0 // _POSIX_VDISABLE
)

var (
	systemChars  = map[byte]int{16: unix.VSWTC}
	systemInput  = map[byte]tcflag{37: unix.IUCLC}
	systemLocal  = map[byte]tcflag{52: unix.XCASE}
	systemOutput = map[byte]tcflag{71: unix.OLCUC}
)

// speeds are the bits of c_cflag for the speeds that have some. A PTY has no speed; programs draw less when it looks slow.
var speeds = map[uint32]uint32{
	50: unix.B50, 75: unix.B75, 110: unix.B110, 134: unix.B134, 150: unix.B150, 200: unix.B200, 300: unix.B300, 600: unix.B600,
	1200: unix.B1200, 1800: unix.B1800, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200,
	38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800,
	921600: unix.B921600, 1000000: unix.B1000000, 2000000: unix.B2000000, 4000000: unix.B4000000,
}

// setInputSpeed does nothing: TCSETS takes both speeds from the output's bits.
func setInputSpeed(*unix.Termios, uint32) {}

func setOutputSpeed(t *unix.Termios, baud uint32) {
	if bits, ok := speeds[baud]; ok {
		t.Cflag = t.Cflag&^unix.CBAUD | bits
		t.Ispeed, t.Ospeed = baud, baud
	}
}
