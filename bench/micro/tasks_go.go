// The figures of bench/tasks over Go, by the same pattern as tasks_tram.c, on one thread of goroutines. There is no
// switch without its scheduler: "switch" is two goroutines that yield to each other.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	many     = 100
	batch    = 250
	rounds   = 20000
	switches = 4000000
)

// CPU time of the process.
func now() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func say(name string, start time.Duration, count int) {
	fmt.Printf("%s %.3f\n", name, float64(now()-start)/float64(count))
}

func yieldOften(count int, done *sync.WaitGroup) {
	for i := 0; i < count; i++ {
		runtime.Gosched()
	}
	done.Done()
}

func measureYield(name string, goroutines, each int) {
	var done sync.WaitGroup
	start := now()
	done.Add(goroutines)
	for i := 0; i < goroutines; i++ {
		go yieldOften(each, &done)
	}
	done.Wait()
	say(name, start, goroutines*each)
}

func measureSpawn(name string, atATime int) {
	start := now()
	times := rounds / atATime * 10
	for round := 0; round < times; round++ {
		var done sync.WaitGroup
		done.Add(atATime)
		for i := 0; i < atATime; i++ {
			go done.Done()
		}
		done.Wait()
	}
	say(name, start, times*atATime)
}

// A channel with room for one is Go's semaphore, and one of pointers its queue.
func measurePairs[T any](name string, item T) {
	var done sync.WaitGroup
	start := now()
	done.Add(many)
	for i := 0; i < many/2; i++ {
		there, back := make(chan T, 1), make(chan T, 1)
		go func() {
			for i := 0; i < rounds; i++ {
				back <- <-there
			}
			done.Done()
		}()
		go func() {
			for i := 0; i < rounds; i++ {
				there <- item
				<-back
			}
			done.Done()
		}()
	}
	done.Wait()
	say(name, start, many*rounds)
}

func residentMiB() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "VmRSS:") {
			kib, _ := strconv.Atoi(strings.Fields(line)[1])
			return float64(kib) / 1024
		}
	}
	panic("no VmRSS")
}

func sleepAll(count int) {
	before := residentMiB()
	for i := 0; i < count; i++ {
		go time.Sleep(time.Hour)
	}
	runtime.Gosched()
	fmt.Printf("resident_mib %.1f\n", residentMiB()-before)
}

func main() {
	runtime.GOMAXPROCS(1)
	if len(os.Args) > 1 {
		count, _ := strconv.Atoi(os.Args[1])
		sleepAll(count)
		return
	}
	measureYield("switch", 2, switches/2)
	measureSpawn("spawn", batch)
	measureSpawn("spawn1", 1)
	measureYield("yield", many, rounds)
	measurePairs("semaphore", struct{}{})
	measurePairs("queue", &struct{ number int }{})
}
