using Vmm.Devices.Bus;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>Random accesses of every width at every port of a device: none throws, and bytes after the first are always filled.</summary>
internal static class DeviceFuzz
{
    public static void Run(IBusDevice device, int ports, int seed, int steps = 50_000)
    {
        Random random = new(seed);
        byte[] data = new byte[8], again = new byte[8];
        for (int step = 0; step < steps; step++)
        {
            int width = 1 << random.Next(4);
            ulong offset = (ulong)random.Next(ports);
            if (random.Next(2) == 0)
            {
                random.NextBytes(data);
                device.Write(offset, data.AsSpan(0, width));
                continue;
            }

            // Bytes beyond the first are constant in these devices: two reads over different leftovers agree where both were filled.
            data.AsSpan().Fill(0x55);
            again.AsSpan().Fill(0xAA);
            device.Read(offset, data.AsSpan(0, width));
            device.Read(offset, again.AsSpan(0, width));
            Assert.Equal(data[1..width], again[1..width]);
        }
    }
}
