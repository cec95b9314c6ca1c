package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// shim is process 1 of a new container: it arranges what the command sees and becomes the command. It never returns.
func shim() {
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(errorFD)
	report := os.NewFile(errorFD, "error")
	spec := Spec{}
	err := json.NewDecoder(os.NewFile(specFD, "spec")).Decode(&spec)
	if err == nil {
		err = become(spec, report)
	}
	fmt.Fprint(report, err)
	os.Exit(128) //nolint:forbidigo // this process is not the program that main is for
}

// become replaces this process by the command, or returns why it cannot.
func become(spec Spec, report *os.File) error {
	syscall.Umask(0o022)
	if err := syscall.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := arrange(spec); err != nil {
		return err
	}
	if err := os.Chdir(filepath.Join("/", spec.Dir)); err != nil {
		return fmt.Errorf("enter the working directory: %w", err)
	}
	if len(spec.Argv) == 0 {
		pause(report)
	}
	var err error = syscall.ENOENT
	for _, path := range candidates(spec.Argv[0], spec.Env) {
		if e := syscall.Exec(path, spec.Argv, spec.Env); !errors.Is(e, syscall.ENOENT) {
			err = e
		}
	}
	return fmt.Errorf("exec %q: %w", spec.Argv[0], err)
}

// pause is the command of a container that has none. It never returns.
func pause(report *os.File) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	report.Close()
	<-end
	os.Exit(0) //nolint:forbidigo // this process is not the program that main is for
}

// candidates are the files a command may mean, in the order of the PATH it would see.
func candidates(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	var paths []string
	for _, e := range env {
		if list, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, dir := range filepath.SplitList(list) {
				paths = append(paths, filepath.Join(dir, command))
			}
		}
	}
	return paths
}

// root is the file system under construction.
type root struct {
	// private tells for each mount point whether what is mounted there belongs to the container. Anything else is the host's.
	private map[string]bool
}

// arrange gives this process a root of its own and lets go of the host's.
func arrange(spec Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	r := &root{private: map[string]bool{"/": true}}
	if err := r.build(spec.Root); err != nil {
		return err
	}
	for path, binary := range spec.Binaries {
		if err := bindFile(binary, filepath.Join(spec.Root, path)); err != nil {
			return err
		}
	}
	volumes, err := openVolumes(spec.Mounts)
	if err != nil {
		return err
	}
	if err := changeRoot(spec.Root); err != nil {
		return err
	}
	return r.mountVolumes(spec, volumes)
}

// changeRoot makes dir the root and lets go of the old one. Both lie on top of each other meanwhile, so no directory for the old one is needed.
func changeRoot(dir string) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the old root: %w", err)
	}
	defer func() { _ = unix.Close(old) }()
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return fmt.Errorf("enter the old root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return nil
}

// build mounts an empty file system at dir and shows the host's top-level directories in it, but /proc and /run.
func (r *root) build(dir string) error {
	if err := unix.Mount("root", dir, "tmpfs", unix.MS_NODEV, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	// Below one of the host's directories lies dir itself: unbindable keeps it from showing up inside of itself.
	if err := unix.Mount("", dir, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("list the host's root: %w", err)
	}
	for _, e := range entries {
		from, to := filepath.Join("/", e.Name()), filepath.Join(dir, e.Name())
		switch {
		case e.Name() == "proc" || e.Name() == "run":
		case e.Type()&os.ModeSymlink != 0:
			if err := copyLink(from, to); err != nil {
				return err
			}
		case e.IsDir():
			if err := os.Mkdir(to, 0o755); err != nil {
				return fmt.Errorf("make a mount point: %w", err)
			}
			if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("show %s: %w", from, err)
			}
			r.private[from] = false
		}
	}
	return errors.Join(mountProc(dir), r.mountRun(dir))
}

// mountProc shows the container's own processes. Where a surrounding container hides parts of /proc, the kernel refuses a new one to an
// ordinary user; then the host's is shown, which works too as long as nobody looks for processes by number.
func mountProc(dir string) error {
	to := filepath.Join(dir, "proc")
	if err := os.Mkdir(to, 0o555); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	err := unix.Mount("proc", to, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		err = unix.Mount("/proc", to, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// mountRun makes /run, and /var/run where it is not the same, empty: that is where Kubernetes mounts most things, and images bring nothing there.
func (r *root) mountRun(dir string) error {
	paths := []string{"/run"}
	if info, err := os.Lstat("/var/run"); err == nil && info.IsDir() {
		paths = append(paths, "/var/run")
	}
	for _, path := range paths {
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("make a mount point: %w", err)
		}
		if err := unix.Mount("run", to, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=755,size=16m"); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
		r.private[path] = true
	}
	return nil
}

// openVolumes takes hold of the volumes while the host's file system is still there, as mounts that are not attached anywhere yet.
func openVolumes(mounts []Mount) ([]int, error) {
	fds := make([]int, len(mounts))
	for i, m := range mounts {
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, fmt.Errorf("open volume %s: %w", m.Source, err)
		}
		fds[i] = fd
	}
	return fds, nil
}

// mountVolumes attaches the volumes at their targets, outer ones first. Mount points are made before the root may become read-only.
func (r *root) mountVolumes(spec Spec, volumes []int) error {
	order := make([]int, len(spec.Mounts))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return len(spec.Mounts[order[a]].Target) < len(spec.Mounts[order[b]].Target) })
	for _, i := range order {
		if err := r.mountPoint(volumes[i], spec.Mounts[i].Target); err != nil {
			return err
		}
	}
	if spec.ReadOnlyRoot {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, attr); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	for _, i := range order {
		if err := mountVolume(volumes[i], spec.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func mountVolume(volume int, m Mount) error {
	info, err := os.Stat(fdPath(volume))
	if err != nil {
		return fmt.Errorf("look at volume %s: %w", m.Source, err)
	}
	if err := makeLike(info, m.Target); err != nil {
		return err
	}
	if m.ReadOnly {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(volume, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return fmt.Errorf("make %s read-only: %w", m.Target, err)
		}
	}
	if err := unix.MoveMount(volume, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount a volume at %s: %w", m.Target, err)
	}
	return nil
}

// mountPoint makes target if it is missing, of the same kind as source, without writing to the host's file system: where the first
// missing part would lie in a directory of the host, that directory is first covered by a private one that shows the same things.
func (r *root) mountPoint(volume int, target string) error {
	info, err := os.Stat(fdPath(volume))
	if err != nil {
		return fmt.Errorf("look at a volume: %w", err)
	}
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	existing := filepath.Dir(target)
	for existing != "/" {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		existing = filepath.Dir(existing)
	}
	dir, err := filepath.EvalSymlinks(existing)
	if err != nil {
		return fmt.Errorf("find %s: %w", existing, err)
	}
	if !r.isPrivate(dir) {
		if err := r.cover(dir); err != nil {
			return err
		}
	}
	return makeLike(info, target)
}

func (r *root) isPrivate(path string) bool {
	for p := path; ; p = filepath.Dir(p) {
		if private, ok := r.private[p]; ok {
			return private
		}
	}
}

// cover mounts an empty file system over a directory of the host and shows the directory's content in it.
func (r *root) cover(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	below, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(below) }()
	if err := unix.Mount("cover", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("cover %s: %w", dir, err)
	}
	r.private[dir] = true
	for _, e := range entries {
		from, to := filepath.Join(fdPath(below), e.Name()), filepath.Join(dir, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			if err := copyLink(from, to); err != nil {
				return err
			}
			continue
		}
		info, err := os.Lstat(from)
		if err != nil {
			continue
		}
		if err := makeLike(info, to); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("show %s again: %w", to, err)
		}
		r.private[to] = false
	}
	return nil
}

// makeLike makes a directory or an empty file to mount something of that kind on.
func makeLike(source os.FileInfo, target string) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	dir := target
	if !source.IsDir() {
		dir = filepath.Dir(target)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make mount point %s: %w", target, err)
	}
	if source.IsDir() {
		return nil
	}
	f, err := os.OpenFile(target, os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("make mount point %s: %w", target, err)
	}
	return f.Close()
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err == nil {
		err = os.Symlink(target, to)
	}
	if err != nil {
		return fmt.Errorf("copy a link: %w", err)
	}
	return nil
}

func bindFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("find the image's binary: %w", err)
	}
	if err := makeLike(info, to); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the image's binary: %w", err)
	}
	return nil
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
