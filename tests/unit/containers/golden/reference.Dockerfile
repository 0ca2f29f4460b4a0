# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 host.invalid/team/finished:1
