# What U-Boot does on a Raspberry Pi: the good slot starts, or the one that is tried for as long as it has tries left,
# counted down and saved before it starts. edgeai/appliance/uboot.py writes the sectors 0x800 and, as a copy, 0x1000.
# A slot that cannot be loaded gives way to the next one. A system that is tried is told so: edgeai-trial.timer ends what
# does not end itself.
setenv part ${devtype} ${devnum}:${distro_bootpart}
setenv block 0x3000000
setenv kernel 0x4000000
setenv good a
setenv try none
setenv tries 0
${devtype} dev ${devnum}
for place in 0x1000 0x800; do
    ${devtype} read ${block} ${place} 1 && env import -c ${block} 0x200 good try tries
done
echo edgeai: slot ${good} is good, ${try} is tried, tries left: ${tries}
setenv order ${good}
if test ${tries} -gt 0; then
    setexpr tries ${tries} - 1
    env export -c -s 0x200 ${block} good try tries
    if ${devtype} write ${block} 0x800 1; then
        ${devtype} write ${block} 0x1000 1
        setenv order ${try} ${good}
    fi
fi
for slot in ${order} a b; do
    if test -e ${part} /${slot}/release.json && test -e ${part} /${slot}/initrd.img && load ${part} ${block} /${slot}/cmdline.env; then
        echo edgeai: starting slot ${slot}
        env import -t ${block} ${filesize} bootargs
        setenv trial
        if test ${slot} = ${try}; then setenv trial edgeai.trial; fi
        setenv bootargs ${bootargs} ${trial} initrd=/${slot}/initrd.img
        load ${part} ${kernel} /${slot}/vmlinuz && test ${filesize} != 0 && bootefi ${kernel} ${fdt_addr}
    fi
done
reset
