# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 python:3.12-slim
USER root
COPY ["dependencies/", "/.mllaunch/dependencies/"]
RUN cd / && \
    { python3 -m pip --version >/dev/null 2>&1 || { echo 'mllaunch: the base image has no pip for python3; on Debian it is in the system package python3-pip' >&2; exit 1; }; } && \
    export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 && \
    python3 -m pip install --no-cache-dir -r /.mllaunch/dependencies/requirements.txt && \
    python3 -m pip freeze > /.mllaunch/requirements.lock && \
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); file = open(os.path.join(place, "mllaunch-workspace.pth"), "wb"); file.write(b"".join(os.fsencode(line) + b"\n" for line in sys.argv[1:])); file.close()' /workspace/a /workspace/a/src
