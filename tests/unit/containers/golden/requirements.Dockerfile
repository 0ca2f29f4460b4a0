# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 python:3.12-slim
USER root
COPY ["dependencies/", "/.mllaunch/dependencies/"]
RUN cd / && \
    { python3 -m pip --version >/dev/null 2>&1 || { echo 'mllaunch: the base image has no pip for python3; on Debian it is in the system package python3-pip' >&2; exit 1; }; } && \
    export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 && \
    python3 -m pip install --no-cache-dir -r /.mllaunch/dependencies/requirements.txt && \
    python3 -m pip freeze > /.mllaunch/requirements.lock && \
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); file = open(os.path.join(place, "mllaunch-workspace.pth"), "wb"); file.write(b"".join(os.fsencode(line) + b"\n" for line in sys.argv[1:])); file.close()' /workspace/a /workspace/a/src && \
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); pairs = zip(sys.argv[1::2], sys.argv[2::2]); write = lambda name, text: open(os.path.join(place, name), "w").write(text.replace(";;", chr(10))); [write(*pair) for pair in pairs]' mllaunch_begin.py 'def begin():;;    try:;;        import os, sys;;        hook = '"'"'/.mllaunch/hook'"'"';;        if os.path.isdir(hook) and sys.version_info >= (3, 8):;;            sys.path.insert(0, hook);;            try:;;                import mllaunch_hook;;            finally:;;                sys.path.remove(hook);;            mllaunch_hook.install();;    except Exception:;;        pass;;' mllaunch-begin.pth 'import mllaunch_begin; mllaunch_begin.begin();;' mllaunch-begin.start 'mllaunch_begin:begin;;'
