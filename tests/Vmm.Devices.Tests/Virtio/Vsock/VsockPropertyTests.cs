using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Virtio.Vsock;

namespace Vmm.Devices.Tests.Virtio.Vsock;

/// <summary>The packet state machine against an honest guest with any timing, and against a guest that sends anything.</summary>
public sealed class VsockPropertyTests
{
    private const ulong Cid = 7;

    [Fact]
    public void Bytes_arrive_whole_and_in_order_within_everybodys_credit()
    {
        Gen<(int Kind, int Size)> step = Gen.Choose(0, 5).SelectMany(k => Gen.Choose(1, 20_000).Select(s => (k, s)));
        Check.One(
            Config.QuickThrowOnFailure.WithMaxTest(40),
            Prop.ForAll(step.ListOf(60).ToArbitrary(), Gen.Choose(1, 100_000).ToArbitrary(), (steps, guestBuffer) =>
            {
                FakeHost host = new();
                VsockSwitch packets = new(Cid, host);
                HonestGuest guest = new(packets, (uint)guestBuffer);
                guest.Connect();
                FakeStream stream = host.Streams[0];
                stream.Room = 0;
                byte next = 0;
                List<byte> toGuest = [];
                foreach ((int kind, int size) in steps)
                {
                    switch (kind)
                    {
                        case 0 or 1:
                            guest.Send(size);
                            break;
                        case 2:
                            for (int i = 0; i < size; i++)
                            {
                                toGuest.Add(next);
                                stream.ToGuest.Enqueue(next++);
                            }

                            break;
                        case 3:
                            stream.Room = size;
                            break;
                        case 4:
                            guest.Consume(size);
                            break;
                        default:
                            break;
                    }

                    packets.Wake(stream.Connection!);
                    guest.TakePackets(size);
                }

                stream.Room = int.MaxValue;
                // A guest with room for one byte gets them one by one.
                for (int i = 0; i < 10_000 + toGuest.Count + guest.Sent.Count
                    && (guest.Received.Count < toGuest.Count || stream.FromGuest.Count < guest.Sent.Count); i++)
                {
                    packets.Wake(stream.Connection!);
                    guest.TakePackets(4096);
                    guest.Consume(int.MaxValue);
                }

                Assert.Equal(guest.Sent, stream.FromGuest);
                Assert.Equal(toGuest, guest.Received);
            }));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_packets_leave_the_tables_bounded_and_every_stream_closed_once()
    {
        Random random = new(1910);
        byte[] data = new byte[VsockSwitch.MaxData], raw = new byte[VsockHeader.Bytes];
        for (int round = 0; round < QueueFuzz.Iterations; round++)
        {
            FakeHost host = new();
            List<FakeStream> opened = [];
            VsockSwitch packets = new(Cid, host, maxConnections: 4);
            for (int step = 0; step < 200; step++)
            {
                random.NextBytes(raw);
                VsockHeader header = VsockHeader.Read(raw) with
                {
                    SourceCid = random.Next(20) == 0 ? 8 : Cid,
                    DestinationCid = random.Next(20) == 0 ? 9UL : 2,
                    SourcePort = (uint)random.Next(6),
                    DestinationPort = random.Next(4) == 0 ? (1u << 30) + (uint)random.Next(4) : (uint)random.Next(998, 1002),
                    Type = (ushort)(random.Next(20) == 0 ? 2 : 1),
                    Operation = (VsockOperation)random.Next(9),
                };
                if (packets.CanTake)
                {
                    packets.FromGuest(header, data.AsSpan(0, header.Operation == VsockOperation.Data ? random.Next(data.Length) : 0));
                }

                if (random.Next(8) == 0)
                {
                    FakeStream stream = new();
                    opened.Add(stream);
                    if (!packets.Open(stream, (uint)random.Next(6), out _))
                    {
                        stream.Close();
                    }
                }

                foreach (FakeStream stream in host.Streams.Concat(opened).Where(s => s.Closes == 0 && random.Next(4) == 0))
                {
                    stream.ToGuest.Enqueue(1);
                    stream.Room = random.Next(3) == 0 ? 0 : random.Next(100_000);
                    stream.Ended |= random.Next(20) == 0;
                    stream.Gone |= random.Next(20) == 0;
                    packets.Wake(stream.Connection!);
                }

                Assert.InRange(packets.Count, 0, 4);
                int room = random.Next(3000);
                for (int i = random.Next(4); i > 0 && packets.TryNext(data.AsSpan(0, room), out VsockHeader answer); i--)
                {
                    Assert.Equal(Cid, answer.DestinationCid);
                    // of the type it was asked with
                    Assert.True(answer.Type == VsockHeader.Stream || (answer.Type == 2 && answer.Operation == VsockOperation.Reset));
                    Assert.InRange(answer.Length, 0u, (uint)room);
                    Assert.True(answer.Operation == VsockOperation.Data || answer.Length == 0);
                }
            }

            packets.Reset();
            Assert.All(host.Streams.Concat(opened), s => Assert.Equal(1, s.Closes));
            Assert.Equal((0, false), (packets.Count, packets.HasWork));
        }
    }

    /// <summary>A guest that keeps to the rules of 5.10.6.3, with one connection.</summary>
    private sealed class HonestGuest(VsockSwitch packets, uint buffer)
    {
        private readonly byte[] _data = new byte[VsockSwitch.MaxData];
        private uint _forwarded, _unread, _peerForwarded, _peerBuffer, _told;
        private byte _next;

        public List<byte> Sent { get; } = [];

        public List<byte> Received { get; } = [];

        public void Connect()
        {
            packets.FromGuest(Packet(VsockOperation.Request), []);
            TakePackets(0);
        }

        public void Send(int bytes)
        {
            uint room = _peerBuffer - unchecked((uint)Sent.Count - _peerForwarded);
            byte[] data = new byte[Math.Min(Math.Min((uint)bytes, room), VsockSwitch.MaxData)];
            for (int i = 0; i < data.Length; i++)
            {
                data[i] = _next++;
            }

            Sent.AddRange(data);
            packets.FromGuest(Packet(VsockOperation.Data) with { Length = (uint)data.Length }, data);
        }

        public void Consume(int bytes)
        {
            uint count = Math.Min((uint)bytes, _unread);
            _unread -= count;
            _forwarded += count;
            if (_forwarded != _told)
            {
                packets.FromGuest(Packet(VsockOperation.CreditUpdate), []);
            }
        }

        public void TakePackets(int room)
        {
            for (int i = 0; i < 3 && packets.TryNext(_data.AsSpan(0, Math.Min(room + 1, _data.Length)), out VsockHeader header); i++)
            {
                Assert.True(
                    header.Operation is VsockOperation.Response or VsockOperation.Data or VsockOperation.CreditUpdate, header.ToString());
                (_peerBuffer, _peerForwarded) = (header.BufferBytes, header.ForwardedBytes);
                Received.AddRange(_data.AsSpan(0, (int)header.Length));
                _unread += header.Length;
                Assert.InRange(_unread, 0u, buffer);
            }
        }

        private VsockHeader Packet(VsockOperation operation)
        {
            _told = _forwarded;
            return new()
            {
                SourceCid = Cid,
                DestinationCid = 2,
                SourcePort = 5000,
                DestinationPort = 80,
                Type = VsockHeader.Stream,
                Operation = operation,
                BufferBytes = buffer,
                ForwardedBytes = _forwarded,
            };
        }
    }
}
