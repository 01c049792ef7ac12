package tool_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cairn-storage/cairn/drivers/tool"
)

func TestStart(t *testing.T) {
	var out, errs bytes.Buffer
	dir := t.TempDir()
	p, err := tool.Start(tool.Spec{
		Name: "sh", Args: []string{"-c", "pwd; echo $GREETING >&2; exit 4"},
		Dir: dir, Env: []string{"GREETING=hello"}, Stdout: &out, Stderr: &errs,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "exit status 4") {
			t.Errorf("Wait: %v; want exit status 4", err)
		}
	}
	if out.String() != dir+"\n" || errs.String() != "hello\n" {
		t.Errorf("output: %q and %q", &out, &errs)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal after the end: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("Kill after the end: %v", err)
	}
}

func TestStartOfNothing(t *testing.T) {
	if _, err := tool.Start(tool.Spec{Name: "/no/such/program"}); err == nil {
		t.Error("Start of what is not there succeeded")
	}
}

func TestSignal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	p, err := tool.Start(tool.Spec{Name: "sh", Args: []string{"-c", `trap 'exit 0' TERM; echo $$ > "$0"; while :; do sleep 0.01; done`, file}})
	if err != nil {
		t.Fatal(err)
	}
	if got := readPid(t, file); got != p.Pid() {
		t.Errorf("Pid: %d; want %d", p.Pid(), got)
	}
	select {
	case <-p.Done():
		t.Error("Done before the end")
	default:
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Wait: %v; want nil after exit 0", err)
	}
}

func TestKillWithOwnGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	p, err := tool.Start(tool.Spec{
		Name: "sh", Args: []string{"-c", `sleep 1000 & echo $! > "$0.tmp"; mv "$0.tmp" "$0"; wait`, file}, OwnGroup: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	grandchild := readPid(t, file)
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Wait: %v; want killed", err)
	}
	awaitEnd(t, grandchild)
}

// Children must not outlive a parent that had no chance to end them. Their threads come and go meanwhile: many goroutines
// start children, and each child still lives when the goroutine that asked for it is gone.
func TestChildrenDieWithTheirParent(t *testing.T) {
	if os.Getenv("CAIRN_TOOL_PARENT") != "" {
		startChildren()
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestChildrenDieWithTheirParent$")
	parent.Env = append(os.Environ(), "CAIRN_TOOL_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	children := strings.Fields(line)
	for _, child := range children {
		if stat, err := os.ReadFile("/proc/" + child + "/stat"); err != nil || bytes.Contains(stat, []byte(") Z ")) {
			t.Errorf("child %s has ended before its parent: %s, %v", child, stat, err)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // says that it was killed
	if len(children) != 8 {
		t.Fatalf("children: %q", line)
	}
	for _, child := range children {
		pid, err := strconv.Atoi(child)
		if err != nil {
			t.Fatal(err)
		}
		awaitEnd(t, pid)
	}
}

// startChildren is the parent of the test above: it prints the children's numbers and waits to be killed.
func startChildren() {
	pids := make(chan int)
	for range 8 {
		go func() {
			p, err := tool.Start(tool.Spec{Name: "sleep", Args: []string{"1000"}})
			if err != nil {
				panic(err)
			}
			pids <- p.Pid()
		}()
	}
	line := ""
	for range 8 {
		line += fmt.Sprintf("%d ", <-pids)
	}
	fmt.Println(line)
	select {}
}
