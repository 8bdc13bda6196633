"""The API by hand: bodies and parameters that no client sends."""

from tests.e2e.parity.scene import Differs, Scene

SCENES = (
    Scene(
        name="create by hand",
        text="""
        POST /v1.41/containers/create
        POST /v1.41/containers/create {}
        POST /v1.41/containers/create {
        POST /v1.41/containers/create null
        POST /v1.41/containers/create []
        POST /v1.41/containers/create "x"
        POST /v1.41/containers/create {"Image": 5}
        POST /v1.41/containers/create {"Image": "busybox", "Cmd": 5}
        POST /v1.41/containers/create {"Image": "busybox", "Cmd": "true"}
        POST /v1.41/containers/create {"Image": "busybox", "Env": "x"}
        POST /v1.41/containers/create {"Image": "busybox", "Env": ["=x"]}
        POST /v1.41/containers/create {"Image": "busybox", "Tty": "yes"}
        POST /v1.41/containers/create {"Image": "busybox", "Labels": {"a": 1}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": 5}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"Memory": "64m"}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"Memory": 1.5}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"Memory": 99999999999999999999}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"Binds": ["/x"]}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"Binds": ["x:y:z:w"]}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"NetworkMode": "nope nope"}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "nope"}}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"PortBindings": {"x/tcp": [{}]}}}
        POST /v1.41/containers/create {"Image": "busybox", "ExposedPorts": {"99999/tcp": {}}}
        POST /v1.41/containers/create {"Image": "busybox", "WorkingDir": "relative"}
        POST /v1.41/containers/create {"Image": "busybox", "StopSignal": "NOPE"}
        POST /v1.41/containers/create {"Image": "busybox", "StopTimeout": "x"}
        POST /v1.41/containers/create {"Image": "busybox", "Cmd": [""], "Entrypoint": []}
        POST /v1.41/containers/create {"Image": "busybox", "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}}
        POST /v1.41/containers/create {"Image": "nope"}
        POST /v1.41/containers/create {"Image": "NOPE"}
        POST /v1.41/containers/create {"image": "busybox", "cmd": ["true"], "Unknown": 1}
        POST /v1.41/containers/create?name=-bad {"Image": "busybox"}
        POST /v1.41/containers/create?name=raw {"Image": "busybox"}
        POST /v1.41/containers/create?name=raw {"Image": "busybox", "Cmd": ["true"]}
        POST /v1.41/containers/create?platform=nope {"Image": "busybox"}
        """,
    ),
    Scene(
        name="lives by hand",
        text="""
        -docker create --name cc -i busybox sh -c 'read x' >/dev/null
        POST /v1.41/containers/nope/start
        POST /v1.41/containers/nope/stop
        POST /v1.41/containers/nope/kill
        POST /v1.41/containers/nope/pause
        POST /v1.41/containers/nope/unpause
        POST /v1.41/containers/nope/restart
        POST /v1.41/containers/nope/rename?name=x
        POST /v1.41/containers/nope/resize?h=1&w=1
        POST /v1.41/containers/nope/update {}
        DELETE /v1.41/containers/nope
        GET /v1.41/containers/nope/top
        GET /v1.41/containers/nope/stats
        GET /v1.41/containers/nope/changes
        GET /v1.41/containers/nope/export
        GET /v1.41/containers/nope/archive?path=/
        POST /v1.41/containers/cc/start {"HostConfig": {}}
        POST /v1.41/containers/cc/kill
        POST /v1.41/containers/cc/stop
        POST /v1.41/containers/cc/start
        POST /v1.41/containers/cc/start?detachKeys=nope
        POST /v1.41/containers/cc/stop?t=nope
        POST /v1.41/containers/cc/kill?signal=nope
        POST /v1.41/containers/cc/resize?h=nope&w=1
        POST /v1.41/containers/cc/resize?h=1&w=1
        POST /v1.41/containers/cc/resize
        POST /v1.41/containers/cc/rename
        DELETE /v1.41/containers/cc
        DELETE /v1.41/containers/cc?force=nope
        POST /v1.41/containers/prune?filters=nope
        POST /v1.41/images/nope/tag?repo=x
        POST /v1.41/images/busybox/tag
        POST /v1.41/images/busybox/tag?repo=BAD
        GET /v1.41/images/nope/json
        GET /v1.41/images/nope/history
        GET /v1.41/images/nope/get
        DELETE /v1.41/images/nope
        POST /v1.41/images/load nope
        POST /v1.41/images/create?fromSrc=-&repo=BAD
        GET /v1.41/images/json?filters=nope
        POST /v1.41/images/prune?filters=nope
        """,
        differs={
            "POST /v1.41/containers/cc/kill?signal=nope": Differs(
                reason="28 looks at the signal in the same place as at the container",
                out='{"message": "cannot kill container: cc: invalid signal: nope"}\n',
            ),
            "POST /v1.41/images/load nope": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                code=400,
                out='{"message": "invalid archive: unexpected end of archive"}\n',
            ),
        },
    ),
)
