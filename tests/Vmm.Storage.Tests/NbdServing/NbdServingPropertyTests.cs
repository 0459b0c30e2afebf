using System.Buffers.Binary;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.NbdServing;

/// <summary>
/// Clients that send anything: the server answers what it can, ends the rest, takes no memory for it, and serves the next client.
/// </summary>
[Collection(Scratch.Alone)] // the memory of the process is watched
public sealed class NbdServingPropertyTests
{
    private const int Size = 1 << 20;
    private const long MostMemory = 64 << 20;

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Whatever_clients_say_the_next_one_is_served()
    {
        int rounds = int.TryParse(Environment.GetEnvironmentVariable("VMM_NBD_CLIENTS"), out int wanted) ? wanted : 400;
        MemoryDiskBackend disk = new(Size);
        using OwnServer server = new(disk);
        using (RawClient warm = RawClient.Greeted(server.Socket))
        {
            warm.Send(RawClient.Request(0, 1, length: Size));
            _ = warm.TakeReply();
        }

        long before = Environment.WorkingSet;
        for (int seed = 0; seed < rounds; seed++)
        {
            Random random = new(seed);
            using RawClient client = random.Next(3) == 0 ? new RawClient(server.Socket) : RawClient.Greeted(server.Socket);
            try
            {
                byte[] said = Anything(random);
                for (int at = 0; at < said.Length;)
                {
                    int piece = Math.Min(said.Length - at, 1 + random.Next(random.Next(2) == 0 ? 40 : 20_000));
                    at += Math.Max(1, client.SendWhatFits(said[at..(at + piece)]));
                }
            }
            catch (System.Net.Sockets.SocketException)
            {
                // it was too much for the server
            }
        }

        Assert.False(server.End.IsFaulted, server.End.Exception?.ToString());
        Assert.InRange(Environment.WorkingSet - before, long.MinValue, MostMemory);
        using RawClient last = RawClient.Greeted(server.Socket);
        last.Send([.. RawClient.Request(1, 5, length: 4), 1, 2, 3, 4]);
        Assert.Equal((0u, 5ul), last.TakeReply());
        Assert.Equal([1, 2, 3, 4], disk.Content.AsSpan(0, 4).ToArray());
    }

    [Fact]
    public void A_stream_of_requests_is_answered_one_by_one_however_it_is_cut()
    {
        for (int seed = 0; seed < 20; seed++)
        {
            Random random = new(seed);
            MemoryDiskBackend disk = new(Size);
            using OwnServer server = new(disk);
            using RawClient client = RawClient.Greeted(server.Socket);
            byte[] model = new byte[Size];
            Queue<(ulong Cookie, byte[]? Data)> expected = [];
            List<byte> stream = [];
            for (ulong i = 0; i < 60; i++)
            {
                uint length = (uint)random.Next(random.Next(4) == 0 ? 200_000 : 3_000);
                uint offset = (uint)random.Next((int)(Size - length));
                if (random.Next(2) == 0)
                {
                    byte[] data = new byte[length];
                    random.NextBytes(data);
                    data.CopyTo(model.AsSpan((int)offset));
                    stream.AddRange([.. RawClient.Request(1, i, offset, length), .. data]);
                    expected.Enqueue((i, null));
                }
                else
                {
                    stream.AddRange(RawClient.Request(0, i, offset, length));
                    expected.Enqueue((i, model.AsSpan((int)offset, (int)length).ToArray()));
                }
            }

            byte[] whole = [.. stream];
            Thread sender = new(() =>
            {
                for (int at = 0; at < whole.Length;)
                {
                    int piece = Math.Min(whole.Length - at, 1 + random.Next(50_000));
                    client.Send(whole[at..(at + piece)]);
                    at += piece;
                }
            });
            sender.Start();
            while (expected.TryDequeue(out (ulong Cookie, byte[]? Data) next)) // memory ends requests in their order
            {
                Assert.Equal((0u, next.Cookie), client.TakeReply());
                Assert.Equal(next.Data ?? [], client.Take(next.Data?.Length ?? 0));
            }

            sender.Join();
            Assert.Equal(model, disk.Content);
        }
    }

    // Requests and options, sound and not, cut and mixed with noise; no goodbye, which ends the server as it should.
    private static byte[] Anything(Random random)
    {
        List<byte> bytes = random.Next(2) == 0 ? [0, 0, 0, 3] : [];
        for (int i = random.Next(1, 30); i > 0; i--)
        {
            switch (random.Next(5))
            {
                case 0:
                    byte[] noise = new byte[random.Next(200)];
                    random.NextBytes(noise);
                    bytes.AddRange(noise);
                    break;
                case 1:
                    byte[] option = new byte[16];
                    "IHAVEOPT"u8.CopyTo(option);
                    BinaryPrimitives.WriteInt32BigEndian(option.AsSpan(8), random.Next(12));
                    BinaryPrimitives.WriteInt32BigEndian(option.AsSpan(12), random.Next(3) == 0 ? random.Next() : random.Next(12));
                    bytes.AddRange(option);
                    break;
                default:
                    ushort kind = (ushort)random.Next(9);
                    kind = kind == 2 ? (ushort)3 : kind;
                    uint length = random.Next(4) == 0 ? (uint)random.NextInt64(uint.MaxValue) : (uint)random.Next(100_000);
                    ulong offset = random.Next(4) == 0 ? (ulong)random.NextInt64() : (ulong)random.Next(Size);
                    bytes.AddRange(RawClient.Request(kind, (ulong)i, offset, length, (ushort)(random.Next(4) == 0 ? random.Next(64) : 0)));
                    if (kind == 1 && random.Next(3) > 0)
                    {
                        bytes.AddRange(new byte[Math.Min(length, 200_000)]);
                    }

                    break;
            }
        }

        return [.. bytes];
    }
}
