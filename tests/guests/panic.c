/* Tells the host through the port of pvpanic of event=1, a panic, or 2, a crash kernel that takes over; then it says WENT ON and resets by the keyboard controller. */
#include "kit.h"

int main(struct start_info *info)
{
    args_init(info);
    u8 event = (u8)arg_number("event", 1);
    if ((in8(0x505) & event) == 0)
        fail("pvpanic does not take the event");
    out8(0x505, event);
    print("WENT ON\n");
    out8(0x64, 0xfe);
    for (;;)
        ;
}
