"""logs, attach, exec."""

from tests.e2e.parity.scene import Differs, Scene

SCENES = (
    Scene(
        name="logs",
        text="""
        -docker run --name cc busybox sh -c 'echo one; echo two; echo three; printf end' >/dev/null 2>&1
        -docker run --name both busybox sh -c 'echo out; echo err >&2' >/dev/null 2>&1
        docker logs both
        docker logs cc
        docker logs -f cc
        docker logs -t cc
        docker logs --details cc
        docker logs --details -t cc
        docker logs -n 1 cc
        docker logs --tail 0 cc
        docker logs --tail all cc
        docker logs --tail -1 cc
        docker logs --tail nope cc
        docker logs --tail 2 -f cc
        docker logs --since 1h cc
        docker logs --since 2100-01-01 cc
        docker logs --since 2100-01-01T00:00:00Z cc
        docker logs --since 4102444800.5 cc
        docker logs --since nope cc
        docker logs --until 1h cc
        docker logs --until $(date +%s.%N) cc
        docker logs --until 2000-01-01 cc
        docker logs --until nope cc
        docker logs --since $START cc
        docker logs nope
        docker logs
        docker logs cc cc
        docker container logs cc
        -docker create --name never busybox >/dev/null
        docker logs never
        docker logs -f never & docker start never >/dev/null; docker wait never; wait
        -docker run --name none --log-driver none busybox echo x >/dev/null
        docker logs none
        -docker run -t --name tty busybox sh -c 'echo one; echo two >&2' >/dev/null
        docker logs tty
        docker logs -t tty
        -docker run --name labelled --label a=1 -e B=2 --log-opt labels=a --log-opt env=B busybox echo x >/dev/null
        docker logs --details labelled
        -docker run -d -i --name live busybox sh -c 'echo before; read x; echo after; exit 4' >/dev/null
        docker logs -f live & printf 'go\\n' | docker attach live >/dev/null; wait
        docker logs --tail 1 live
        -docker run --name long busybox sh -c 'head -c 40000 /dev/zero | tr "\\0" x; echo; echo last' >/dev/null
        docker logs long | cksum
        docker logs --tail 2 long | cksum
        GET /v1.41/containers/cc/logs
        GET /v1.41/containers/nope/logs?stdout=1
        GET /v1.41/containers/cc/logs?stdout=1&tail=nope&stderr=0
        GET /v1.41/containers/cc/logs?stdout=1&since=nope
        GET /v1.41/containers/cc/logs?stdout=1&until=nope
        GET /v1.41/containers/tty/logs?stdout=1
        """,
    ),
    Scene(
        name="attach",
        text="""
        -docker run -d -i --name cc busybox head -n1 >/dev/null
        printf 'a line\\nanother\\n' | docker attach cc
        docker attach cc
        docker attach nope
        docker attach
        -docker run -d -i --name dd busybox sh -c 'read x; echo $x; echo err >&2; exit 6' >/dev/null
        printf 'a line\\n' | docker attach dd
        -docker run -d --name pp busybox sleep 100 >/dev/null
        docker attach --no-stdin --detach-keys nope pp
        docker pause pp >/dev/null; docker attach pp; docker unpause pp
        -docker run -d -t --name tt busybox sh -c 'read x; exit 2' >/dev/null
        docker attach tt
        docker kill tt
        POST /v1.41/containers/nope/attach?stream=1&stdout=1
        POST /v1.41/containers/dd/attach?logs=1&stdout=1
        """,
        differs={
            "printf 'a line\\nanother\\n' | docker attach cc": Differs(
                reason="dockerd may lose output of a program that ends while it attaches", out="a line\n"
            ),
            "POST /v1.41/containers/nope/attach?stream=1&stdout=1": Differs(
                reason="28 answers JSON before the connection is taken over",
                out='{"message": "No such container: nope"}\n',
            ),
        },
    ),
    Scene(
        name="exec",
        text="""
        -docker run -d --name cc -e FROM=container -w /tmp busybox sleep 100 >/dev/null
        docker exec cc echo hi
        docker exec cc sh -c 'echo out; echo err >&2; exit 3'
        docker exec cc sh -c 'kill -TERM $$'
        printf 'in' | docker exec -i cc cat
        printf 'in' | docker exec cc cat
        docker exec -d cc sh -c 'echo x >/tmp/made; sleep 0'
        docker exec -e A=1 -e FROM cc sh -c 'echo $A $FROM $PATH $HOME'
        docker exec --env-file /nope cc true
        docker exec cc pwd
        docker exec -w /etc cc pwd
        docker exec -w /nope cc pwd
        docker exec -w relative cc pwd
        docker exec -w /etc/passwd cc pwd
        docker exec -u app cc id
        docker exec -u 1000:2000 cc id
        docker exec -u app cc sh -c 'echo $HOME'
        docker exec -u nope cc id
        docker exec -u app:nope cc id
        docker exec --privileged cc true
        docker exec -u app cc grep Cap /proc/self/status
        docker exec cc grep Cap /proc/self/status
        docker exec -t cc sh -c 'tty; echo $TERM; echo err >&2'
        docker exec -it cc true
        docker exec cc nope
        docker exec cc /nope
        docker exec cc /etc
        docker exec cc /etc/passwd
        docker exec -d cc nope
        docker exec cc ''
        docker exec cc
        docker exec
        docker exec nope true
        docker exec --detach-keys nope -it cc true
        docker exec --nope cc true
        docker exec cc seq 20000 | cksum
        docker exec cc hostname | wc -c
        docker exec cc ls /proc/1/exe
        -docker create --name dd busybox >/dev/null
        docker exec dd true
        docker pause cc >/dev/null; docker exec cc true; docker unpause cc
        POST /v1.41/containers/cc/exec {}
        POST /v1.41/containers/cc/exec {"Cmd": []}
        POST /v1.41/containers/cc/exec {"Cmd": "x"}
        POST /v1.41/containers/cc/exec nope
        POST /v1.41/containers/cc/exec {"Cmd": ["true"]} trailing
        POST /v1.41/containers/nope/exec {"Cmd": ["true"]}
        POST /v1.41/exec/nope/start {"Detach": true}
        POST /v1.41/exec/nope/resize?h=1&w=1
        GET /v1.41/exec/nope/json
        docker stop -t 0 cc >/dev/null; docker exec cc true
        """,
        differs={
            "docker exec --privileged cc true": Differs(
                reason="privileged means what this host has; runc fails where the host lacks a capability",
                code=0,
                out="",
            ),
            "docker exec cc nope": Differs(reason="28 tells 127 of a program that is not found", code=127),
            "docker exec cc /nope": Differs(reason="28 tells 127 of a program that is not found", code=127),
            "docker exec cc ''": Differs(reason="28 tells 127 of a program that is not found", code=127),
            'POST /v1.41/containers/cc/exec {"Cmd": ["true"]} trailing': Differs(
                reason="28 refuses what follows a body",
                code=400,
                out='{"message": "invalid JSON: unexpected content after JSON"}\n',
            ),
        },
    ),
)
