"""docker run and create: exit codes, output, flags, and what is refused."""

from tests.e2e.parity.scene import Differs, Scene

SCENES = (
    Scene(
        name="exit codes",
        text="""
        docker run --rm busybox true
        docker run --rm busybox false
        docker run --rm busybox sh -c 'exit 42'
        docker run --rm busybox sh -c 'kill -TERM $$'
        docker run --rm busybox sh -c 'kill -KILL $$'
        docker run --rm busybox sh -c 'kill -SEGV $$; sleep 5'
        docker run --rm busybox nope
        docker run --rm busybox /nope
        docker run --rm busybox ./nope
        docker run --rm busybox /etc
        docker run --rm busybox /etc/passwd
        docker run --rm busybox /etc/passwd/x
        docker run --rm --entrypoint nope busybox
        docker run --rm --entrypoint /nope busybox x
        docker run --rm busybox ''
        docker run -d --name bad busybox nope
        docker inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}' bad
        docker start bad
        docker start -a bad
        docker run -d --name worse busybox /etc
        docker inspect -f '{{json .State}}' worse
        """,
    ),
    Scene(
        name="output",
        text="""
        docker run --rm busybox sh -c 'echo out; echo err >&2'
        printf 'one\\ntwo' | docker run --rm -i busybox cat
        printf 'one\\ntwo' | docker run --rm busybox cat
        printf 'x' | docker run --rm -i -a stdin -a stdout busybox sh -c 'cat; echo err >&2'
        docker run --rm -a stderr busybox sh -c 'echo out; echo err >&2'
        docker run --rm -a nope busybox true
        docker run --rm -t busybox sh -c 'echo out; echo err >&2; tty; echo $TERM'
        docker run --rm -it busybox true
        docker run --rm busybox seq 20000 | cksum
        docker run --rm busybox printf 'no newline'
        docker run -d --rm -a stdout busybox true
        docker run --rm -d busybox true | wc -c
        docker run --rm --cidfile $T/cid busybox true; wc -c $T/cid
        docker run --rm --cidfile $T/cid busybox true
        docker run --quiet --rm busybox echo quiet
        """,
    ),
    Scene(
        name="process",
        text="""
        docker run --rm -e A=1 -e B --env-file /dev/null busybox sh -c 'echo $A-$B-$HOME-$PATH'
        docker run --rm -e HOME=/x -u app busybox sh -c 'echo $HOME; id'
        docker run --rm -u 1000 busybox sh -c 'echo $HOME; id'
        docker run --rm -u 4242 busybox sh -c 'echo $HOME; id'
        docker run --rm -u 4242:4343 busybox id
        docker run --rm -u app:root busybox id
        docker run --rm -u :app busybox id
        docker run --rm -u 0:extra --group-add app --group-add 77 busybox id
        docker run --rm -u nope busybox id
        docker run --rm -u app:nope busybox id
        docker run --rm -u -1 busybox id
        docker run --rm -u 99999999999 busybox id
        docker run --rm --group-add nope busybox id
        docker run --rm -w /made/here busybox pwd
        docker run --rm -w relative busybox pwd
        docker run --rm -w /etc/passwd busybox pwd
        docker run --rm -w // busybox pwd
        docker run --rm --hostname h.example busybox sh -c 'hostname; cat /etc/hostname; grep -c h.example /etc/hosts'
        docker run --rm --hostname -bad busybox hostname
        docker run --rm --hostname 'a b' busybox hostname
        docker run --rm --domainname d.example busybox sh -c 'cat /proc/sys/kernel/domainname'
        docker run --rm --network none busybox sh -c 'ls /sys/class/net; cat /etc/hosts'
        docker run --rm --network none --add-host a:1.2.3.4 busybox cat /etc/hosts
        docker run --rm --add-host a busybox true
        docker run --rm --add-host a:nope busybox true
        docker run --rm --dns 9.9.9.9 --dns-search x.example --dns-option ndots:2 busybox cat /etc/resolv.conf
        docker run --rm --dns nope busybox true
        docker run --rm --entrypoint echo busybox a b
        docker run --rm --entrypoint '' busybox echo c
        docker run --rm --ulimit nofile=64:128 busybox sh -c 'ulimit -n; ulimit -Hn'
        docker run --rm --ulimit nope=1 busybox true
        docker run --rm --ulimit nofile=5:1 busybox true
        docker run --rm --shm-size 8m busybox sh -c 'df -k /dev/shm | tail -n1'
        docker run --rm --shm-size -1 busybox true
        docker run --rm --shm-size nope busybox true
        docker run --rm --read-only busybox touch /x
        docker run --rm --read-only --tmpfs /t:size=1m busybox sh -c 'touch /t/x; grep " /t " /proc/mounts'
        docker run --rm --tmpfs t busybox true
        docker run --rm --tmpfs /t:nope=1 busybox true
        docker run --rm --tmpfs / busybox true
        docker run --rm --init busybox sh -c 'cat /proc/1/comm'
        docker run --rm --privileged busybox sh -c 'grep CapEff /proc/self/status | cut -c1-30 | wc -l; mount -t tmpfs x /tmp; echo $?'
        docker run --rm busybox sh -c 'mount -t tmpfs x /tmp; echo $?'
        docker run --rm busybox grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status
        docker run --rm --cap-drop ALL --cap-add chown busybox grep Cap /proc/self/status
        docker run --rm --cap-add CAP_NOPE busybox true
        docker run --rm --cap-drop nope busybox true
        docker run --rm -u app busybox grep Cap /proc/self/status
        docker run --rm --security-opt no-new-privileges --security-opt seccomp=unconfined busybox grep -E 'Seccomp:|NoNewPrivs' /proc/self/status
        docker run --rm --security-opt nope busybox true
        docker run --rm --security-opt nope=x busybox true
        docker run --rm --security-opt seccomp=/nope busybox true
        docker run --rm --sysctl net.ipv4.ip_forward=0 busybox cat /proc/sys/net/ipv4/ip_forward
        docker run --rm --sysctl kernel.nope=1 busybox true
        docker run --rm --sysctl nope busybox true
        docker run --rm --sysctl net.core.somaxconn=1 --network host busybox true
        docker run --rm --device /dev/null:/dev/mine busybox ls /dev/mine
        docker run --rm --device /dev/nope busybox true
        docker run --rm --device /dev/null:/dev/x:q busybox true
        docker run --rm --device-cgroup-rule 'c 1:3 nope' busybox true
        docker run --rm --oom-score-adj 100 busybox cat /proc/self/oom_score_adj
        docker run --rm --oom-score-adj 5000 busybox true
        docker run --rm --ipc nope busybox true
        docker run --rm --pid nope busybox true
        docker run --rm --uts nope busybox true
        docker run --rm --userns nope busybox true
        docker run --rm --cgroupns nope busybox true
        docker run --rm --isolation nope busybox true
        docker run --rm --runtime nope busybox true
        docker run --rm --pid host --ipc host --uts host busybox true
        docker run --rm busybox ls -1 /dev
        docker run --rm busybox ls -1a /
        docker run --rm busybox sh -c 'cut -d" " -f2 /proc/mounts | grep -v cgroup | sort'
        """,
        differs={
            "docker run --rm --group-add nope busybox id": Differs(
                reason="28's module for accounts begins in lower case",
                err="docker: Error response from daemon: unable to find group nope: no matching entries in group file\n\nRun 'docker run --help' for more information\n",
            ),
            "docker run --rm -w /etc/passwd busybox pwd": Differs(
                reason="found at the start, in the container: dockerd looks at create, by paths of the host",
                err="docker: Error response from daemon: START FAILED: chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type\n\nRun 'docker run --help' for more information\n",
            ),
            "docker run --rm --dns 9.9.9.9 --dns-search x.example --dns-option ndots:2 busybox cat /etc/resolv.conf": Differs(
                reason="28 writes name servers first",
                out="nameserver 9.9.9.9\nsearch x.example\noptions ndots:2\n",
            ),
            "docker run --rm --init busybox sh -c 'cat /proc/1/comm'": Differs(
                reason="the engine's own init, by its own name", out="init\n"
            ),
            "docker run --rm --privileged busybox sh -c 'grep CapEff /proc/self/status | cut -c1-30 | wc -l; mount -t tmpfs x /tmp; echo $?'": Differs(
                reason="privileged means what this host has; runc fails where the host lacks a capability",
                code=0,
                out="1\n0\n",
                err="",
            ),
            "docker run --rm --sysctl net.core.somaxconn=1 --network host busybox true": Differs(
                reason="refused at create instead of at start",
                err="docker: Error response from daemon: sysctl \"net.core.somaxconn\" not allowed in host network namespace\n\nRun 'docker run --help' for more information\n",
            ),
            "docker run --rm busybox sh -c 'cut -d\" \" -f2 /proc/mounts | grep -v cgroup | sort'": Differs(
                reason="28 hides /proc/interrupts",
                out="/\n/dev\n/dev/mqueue\n/dev/pts\n/dev/shm\n/etc/hostname\n/etc/hosts\n/etc/resolv.conf\n/proc\n/proc/acpi\n/proc/bus\n/proc/fs\n/proc/interrupts\n/proc/irq\n/proc/keys\n/proc/sys\n/proc/timer_list\n/sys\n/sys/firmware\n",
            ),
        },
    ),
    Scene(
        name="limits",
        text="""
        docker run --rm -m 1 busybox true
        docker run --rm -m 5m busybox true
        docker run --rm -m nope busybox true
        docker run --rm -m -1m busybox true
        docker run --rm -m 64m --memory-swap 32m busybox true
        docker run --rm --memory-swap 64m busybox true
        docker run --rm -m 64m --memory-reservation 128m busybox true
        docker run --rm --memory-reservation 1m busybox true
        docker run --rm -m 64m --memory-swappiness 200 busybox true
        docker run --rm --kernel-memory 1 busybox true
        docker run --rm --cpus 1000 busybox true
        docker run --rm --cpus nope busybox true
        docker run --rm --cpus -1 busybox true
        docker run --rm --cpus 0.5 --cpu-period 100000 busybox true
        docker run --rm --cpus 0.001 busybox true
        docker run --rm --cpu-period 1 busybox true
        docker run --rm --cpu-quota 1 busybox true
        docker run --rm --cpu-shares 1 busybox true
        docker run --rm --cpuset-cpus 4000 busybox true
        docker run --rm --cpuset-cpus nope busybox true
        docker run --rm --cpuset-mems 77 busybox true
        docker run --rm --pids-limit nope busybox true
        docker run --rm --pids-limit -5 busybox true
        docker run --rm -m 64m --pids-limit 20 --cpus 0.5 busybox true
        """,
        differs={
            "docker run --rm --kernel-memory 1 busybox true": Differs(
                reason="28 ignores it, as kernel memory limits are gone", code=0, err=""
            ),
            "docker run --rm --cpu-shares 1 busybox true": Differs(
                reason="refused at create instead of at start",
                err="docker: Error response from daemon: the minimum allowed cpu-shares is 2\n\nRun 'docker run --help' for more information\n",
            ),
        },
    ),
    Scene(
        name="names and references",
        text="""
        -docker create --name one busybox true >/dev/null
        docker create --name one busybox
        docker create --name x busybox
        docker create --name 'a b' busybox
        docker create --name -x busybox
        docker create --name '' busybox | wc -c
        docker create BUSYBOX
        docker create busybox:
        docker create busybox:no/tag
        docker create busybox@sha256:1
        docker create ''
        docker create sha256:0000000000000000000000000000000000000000000000000000000000000000
        docker create --pull never nope
        docker create --pull nope busybox
        docker create --platform linux/arm64 busybox
        docker create --platform nope/nope/nope/nope busybox
        docker run --rm $(docker images -q busybox) echo by id
        docker run --rm $(docker images -q --no-trunc busybox) echo by full id
        docker run
        docker run --nope busybox
        docker run --rm --name
        docker run -d --rm --restart always busybox
        docker run --rm --restart nope busybox
        docker run --rm --restart on-failure:x busybox
        docker run --rm --stop-signal NOPE busybox true
        docker run --rm --stop-signal 99 busybox true
        docker run --rm --stop-timeout -1 busybox true
        docker run --rm --log-driver nope busybox true
        docker run --rm --log-opt nope=1 busybox true
        docker run --rm --log-opt max-size=nope busybox true
        docker run --rm --log-opt max-size=1m --log-opt max-file=0 busybox true
        docker run --rm --log-driver none busybox echo said
        docker run --rm -l a=b -l c --label-file /nope busybox
        docker run --rm -e '' busybox true
        docker run --rm -e =x busybox true
        docker run --rm --env-file /nope busybox true
        docker run --rm --mac-address nope busybox true
        docker run --rm --mac-address 02:00:00:00:00:01 busybox cat /sys/class/net/eth0/address
        docker run --rm --ip 1.2.3.4 busybox true
        docker run --rm --ip nope busybox true
        docker run --rm --network nope busybox true
        docker run --rm --network container:nope busybox true
        docker run --rm --network host -p 80:80 busybox true
        docker run --rm -p nope busybox true
        docker run --rm -p 99999:1 busybox true
        docker run --rm --expose nope busybox true
        docker run --rm --link nope busybox true
        docker run --rm --health-interval nope busybox true
        docker run --rm --health-interval 1us busybox true
        docker run --rm --volumes-from nope busybox true
        """,
        differs={
            "docker create --platform linux/arm64 busybox": Differs(
                reason="a registry that cannot be reached is told of by the request that failed",
                err="Unable to find image 'busybox:latest' locally\nError response from daemon: Get \"https://registry-1.docker.io/v2/library/busybox/manifests/latest\": dial tcp: lookup registry-1.docker.io: no such host\n",
            ),
            "docker run --rm --mac-address 02:00:00:00:00:01 busybox cat /sys/class/net/eth0/address": Differs(
                reason="needs API 1.44", code=0, out="MAC\n", err=""
            ),
        },
    ),
    Scene(
        name="mounts",
        text="""
        -mkdir $T/dir; echo here >$T/dir/file
        docker run --rm -v $T/dir:/d busybox sh -c 'cat /d/file; touch /d/made; echo $?'
        docker run --rm -v $T/dir:/d:ro busybox touch /d/x
        docker run --rm -v $T/dir/file:/f busybox cat /f
        docker run --rm -v $T/new:/d busybox ls -d /d; ls -d $T/new
        docker run --rm -v vol:/etc busybox sh -c 'ls /etc | wc -l; echo kept >/etc/x'
        docker run --rm -v vol:/d busybox cat /d/x
        docker run --rm -v vol:/d:nocopy,ro busybox touch /d/y
        docker run --rm -v vol:relative busybox true
        docker run --rm -v vol:/ busybox true
        docker run --rm -v $T/dir:/ busybox true
        docker run --rm -v vol:/d:nope busybox true
        docker run --rm -v vol:/d:ro,rw busybox true
        docker run --rm -v a/b:/d busybox true
        docker run --rm -v '!:/d' busybox true
        docker run --rm -v :/d busybox true
        docker run --rm -v vol: busybox true
        docker run --rm -v '' busybox true
        docker run --rm -v a:b:c:d busybox true
        docker run --rm -v vol:/d -v $T/dir:/d busybox true
        docker run --rm -v $T/dir:/proc busybox true
        docker run --rm -v $T/dir:/etc/passwd busybox true
        docker run --rm -v $T/dir/file:/etc busybox true
        docker run --rm --mount type=bind,src=$T/dir,dst=/d,readonly busybox touch /d/x
        docker run --rm --mount type=bind,src=$T/nope,dst=/d busybox true
        docker run --rm --mount type=bind,src=relative,dst=/d busybox true
        docker run --rm --mount type=bind,dst=/d busybox true
        docker run --rm --mount type=volume,src=vol,dst=/d busybox cat /d/x
        docker run --rm --mount type=volume,dst= busybox true
        docker run --rm --mount type=volume,dst=d busybox true
        docker run --rm --mount type=nope,dst=/d busybox true
        docker run --rm --mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=700 busybox sh -c 'stat -c %a /d'
        docker run --rm --mount type=tmpfs,src=x,dst=/d busybox true
        docker run --rm --mount type=bind,src=$T/dir,dst=/d,volume-nocopy busybox true
        docker run --rm --mount src=vol,dst=/d,volume-driver=nope busybox true
        docker run --rm --mount src=vol,dst=/d,nope=1 busybox true
        docker run --rm --mount src=vol,dst=/d --mount src=vol,dst=/d busybox true
        docker run -d --name mm -v vol:/v:ro -v /anonymous -v $T/dir:/d:ro --mount type=tmpfs,dst=/t busybox true
        docker inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.Driver}} {{.Mode}} {{.RW}} {{.Propagation}};{{end}}' mm | tr ';' '\\n' | sort
        docker inspect -f '{{json .HostConfig.Mounts}} {{json .Config.Volumes}}' mm
        docker volume rm vol
        docker rm -v mm
        docker volume ls -q
        """,
        differs={
            "docker run --rm --mount src=vol,dst=/d,volume-driver=nope busybox true": Differs(
                reason="the volume that is there is told of before the driver that is not",
                err="docker: Error response from daemon: create vol: conflict: volume name must be unique\n\nRun 'docker run --help' for more information\n",
            ),
            "docker run --rm -v $T/dir:/proc busybox true": Differs(
                reason="refused at create instead of at start",
                err='docker: Error response from daemon: error mounting "TMP/dir" to rootfs at "/proc": "/proc" cannot be mounted because it is not of type proc\n\nRun \'docker run --help\' for more information\n',
            ),
        },
    ),
)
