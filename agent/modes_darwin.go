package agent

import "golang.org/x/sys/unix"

type tcflag = uint64

const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
	disabledCc = 0xff // _POSIX_VDISABLE
)

var (
	systemChars  = map[byte]int{11: unix.VDSUSP, 17: unix.VSTATUS}
	systemInput  = map[byte]tcflag{}
	systemLocal  = map[byte]tcflag{}
	systemOutput = map[byte]tcflag{}
)

func setInputSpeed(t *unix.Termios, baud uint32)  { t.Ispeed = uint64(baud) }
func setOutputSpeed(t *unix.Termios, baud uint32) { t.Ospeed = uint64(baud) }
