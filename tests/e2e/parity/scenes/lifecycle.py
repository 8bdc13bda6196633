"""create, start, stop, restart, kill, pause, wait, rename, rm."""

from tests.e2e.parity.scene import Differs, Scene

SCENES = (
    Scene(
        name="start and stop",
        text="""
        -docker create --name cc busybox sh -c 'trap "echo stopping; exit 3" TERM; echo ready; while :; do sleep 0.05; done' >/dev/null
        docker stop cc # never started
        docker start cc
        docker start cc # again
        docker start nope
        docker start cc nope
        docker start
        docker inspect -f '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}' cc
        -ready cc
        docker stop cc
        docker logs cc
        docker stop cc # again
        docker stop nope cc
        docker inspect -f '{{json .State}}' cc
        docker restart cc
        docker restart -t 0 cc
        docker restart nope
        docker stop -t 0 cc
        docker stop -t nope cc
        docker stop -s KILL cc
        docker start -a -i cc nope
        -docker create --name echo -i busybox cat >/dev/null
        printf hello | docker start -ai echo
        -docker create --name code busybox sh -c 'exit 7' >/dev/null
        docker start -a code
        docker start code
        docker wait code
        """,
    ),
    Scene(
        name="kill",
        text="""
        -docker run -d --name cc busybox sh -c 'trap "echo usr1" USR1; trap "exit 9" INT; echo ready; while :; do sleep 0.05; done' >/dev/null
        -ready cc
        docker kill -s USR1 cc
        docker kill -s SIGUSR1 cc
        docker kill -s usr1 cc
        docker kill -s 10 cc
        docker kill -s NOPE cc
        docker kill -s 99 cc
        docker kill -s -1 cc
        docker kill -s '' cc
        docker kill cc
        docker kill cc # again
        docker inspect -f '{{.State.ExitCode}} {{.State.Status}}' cc
        docker kill nope
        docker kill
        docker kill cc nope
        -docker run -d --name ii busybox sh -c 'trap "exit 9" INT; echo ready; while :; do sleep 0.05; done' >/dev/null
        -ready ii
        docker kill -s INT ii; docker wait ii
        -docker run -d --name qq --stop-signal QUIT busybox sh -c 'trap "exit 33" QUIT; echo ready; while :; do sleep 0.05; done' >/dev/null
        -ready qq
        docker stop qq; docker wait qq
        docker run -d --name rt --stop-signal RTMIN+3 busybox sleep 100 | wc -c
        docker inspect -f '{{.Config.StopSignal}} {{.Config.StopTimeout}}' rt
        docker kill -s RTMIN+99 rt
        docker kill -s RTMAX rt
        docker kill -s 0 rt
        """,
        differs={
            "docker kill -s NOPE cc": Differs(
                reason="28 looks at the signal in the same place as at the container",
                err="Error response from daemon: cannot kill container: cc: invalid signal: NOPE\n",
            ),
            "docker kill -s -1 cc": Differs(
                reason="28 prints a signal's number as it is",
                err="Error response from daemon: cannot kill container: cc: the linux daemon does not support signal -1\n",
            ),
            "docker kill -s RTMIN+99 rt": Differs(
                reason="28 looks at the signal in the same place as at the container",
                err="Error response from daemon: cannot kill container: rt: invalid signal: RTMIN+99\n",
            ),
            "docker kill -s 0 rt": Differs(
                reason="28 looks at the signal in the same place as at the container",
                err="Error response from daemon: cannot kill container: rt: invalid signal: 0\n",
            ),
        },
    ),
    Scene(
        name="pause",
        text="""
        -docker run -d --name cc busybox sleep 100 >/dev/null
        docker pause cc
        docker pause cc # again
        docker ps --format '{{.Names}} {{.Status}} {{.State}}'
        docker inspect -f '{{.State.Status}} {{.State.Running}} {{.State.Paused}}' cc
        docker exec cc true
        docker restart -t 0 nope
        docker start cc
        docker rm cc
        docker rename cc dd
        docker kill -s USR1 dd
        docker unpause dd
        docker unpause dd # again
        docker unpause nope
        docker pause nope
        docker pause
        docker pause dd
        docker stop -t 0 dd
        docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' dd
        docker pause dd # stopped
        docker unpause dd # stopped
        docker start dd; docker pause dd; docker kill dd; docker wait dd
        docker start dd; docker pause dd; docker rm -f dd
        """,
    ),
    Scene(
        name="rm and rename",
        text="""
        -docker create --name aa busybox true >/dev/null
        -docker run -d --name bb busybox sleep 100 >/dev/null
        docker rm bb
        docker rm bb aa
        docker rm aa
        docker rm
        docker rm -f nope
        docker rm -l bb
        docker rename bb bb
        docker rename bb cc
        docker rename cc /d
        docker rename cc /dd
        docker rename nope x
        docker rename dd ''
        docker rename dd 'x y'
        docker rename dd
        -docker create --name ee busybox >/dev/null
        docker rename ee dd
        docker rm -f dd ee
        -docker run -d --name vv -v /anon -v named:/n busybox sleep 100 >/dev/null
        docker rm -f vv
        docker volume ls -q | wc -l
        -docker run -d --name vv -v /anon -v named:/n busybox sleep 100 >/dev/null
        docker rm -fv vv
        docker volume ls -q | wc -l # one of the two
        docker rm $(docker ps -aq)
        """,
    ),
    Scene(
        name="wait",
        text="""
        -docker run -d -i --name cc busybox sh -c 'read x; exit 5' >/dev/null
        docker wait cc & printf 'x\\n' | docker attach cc; wait
        docker wait cc cc
        docker wait nope
        docker wait cc nope
        docker wait
        POST /v1.41/containers/cc/wait
        POST /v1.41/containers/cc/wait?condition=not-running
        POST /v1.41/containers/cc/wait?condition=nope
        POST /v1.41/containers/nope/wait
        """,
        differs={
            "POST /v1.41/containers/cc/wait?condition=nope": Differs(
                reason="28 refuses a condition that it does not know",
                code=400,
                out='{"message": "invalid condition: \\"nope\\""}\n',
            ),
        },
    ),
    Scene(
        name="prune containers",
        text="""
        -docker create --name aa --label x=1 busybox >/dev/null
        -docker create --name bb busybox >/dev/null
        -docker run -d --name cc busybox sleep 100 >/dev/null
        docker container prune
        docker container prune -f --filter nope=1
        docker container prune -f --filter until=nope
        docker container prune -f --filter until=1h
        docker container prune -f --filter label=x
        docker container prune -f --filter label!=x
        docker container prune -f
        docker ps -a --format '{{.Names}}'
        """,
    ),
)
