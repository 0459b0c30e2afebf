using System.Buffers.Binary;

namespace Vmm.HostNet;

/// <summary>A place in a <see cref="BpfProgram"/> that is jumped to from before.</summary>
internal sealed class BpfLabel
{
    internal List<int> From { get; } = [];
}

/// <summary>
/// Writes a program of classic BPF (linux/filter.h) whose answers are those of tc. A frame that is too short for a load is dropped.
/// </summary>
internal sealed class BpfProgram
{
    private const ushort LoadWordCode = 0x20, LoadHalfCode = 0x28, LoadByteCode = 0x30, LoadLengthCode = 0x80, LoadHalfIndexCode = 0x48,
        LoadHeaderCode = 0xb1, JumpCode = 0x05, EqualCode = 0x15, GreaterOrEqualCode = 0x35, AnyCode = 0x45, ReturnCode = 0x06;

    private const uint Pass = 0, Shot = 2; // TC_ACT_OK, TC_ACT_SHOT
    private const uint VlanPresent = 0xffff_f000 + 48; // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT

    private readonly List<(ushort Code, byte True, byte False, uint Value)> _instructions = [];

    /// <summary>The program as the kernel takes it.</summary>
    internal byte[] Bytes
    {
        get
        {
            byte[] bytes = new byte[SpoofFilter.InstructionLength * _instructions.Count];
            for (int i = 0; i < _instructions.Count; i++)
            {
                Span<byte> at = bytes.AsSpan(SpoofFilter.InstructionLength * i);
                (ushort code, at[2], at[3], uint value) = _instructions[i];
                BinaryPrimitives.WriteUInt16LittleEndian(at, code);
                BinaryPrimitives.WriteUInt32LittleEndian(at[4..], value);
            }

            return bytes;
        }
    }

    internal void LoadVlanPresent() => Add(LoadWordCode, VlanPresent);

    internal void LoadWord(int at) => Load(LoadWordCode, at, 4);

    internal void LoadHalf(int at) => Load(LoadHalfCode, at, 2);

    internal void LoadByte(int at) => Load(LoadByteCode, at, 1);

    /// <summary>The length of the IPv4 header that begins there, for <see cref="LoadHalfBehindHeader"/>.</summary>
    internal void LoadHeaderLength(int at) => Add(LoadHeaderCode, (uint)at);

    /// <summary>Two bytes so far behind that length. The longest header is asked for.</summary>
    internal void LoadHalfBehindHeader(int at)
    {
        RequireLength(at + 60 + 2);
        Add(LoadHalfIndexCode, (uint)at);
    }

    internal void Accept() => Add(ReturnCode, Pass);

    internal void Drop() => Add(ReturnCode, Shot);

    internal void DropUnlessEqual(uint value)
    {
        Add(EqualCode, value, 1, 0);
        Drop();
    }

    internal void DropIfEqual(uint value)
    {
        Add(EqualCode, value, 0, 1);
        Drop();
    }

    internal void DropUnlessNone(uint bits)
    {
        Add(AnyCode, bits, 0, 1);
        Drop();
    }

    /// <summary>What is to be done, and does not go on behind, when the loaded value is this one.</summary>
    internal void OnEqual(uint value, Action then)
    {
        BpfLabel over = new();
        Add(EqualCode, value, 1, 0);
        Go(over);
        then();
        Mark(over);
    }

    /// <summary>As <see cref="OnEqual"/>, when the loaded value has any of these bits.</summary>
    internal void OnAny(uint bits, Action then)
    {
        BpfLabel over = new();
        Add(AnyCode, bits, 1, 0);
        Go(over);
        then();
        Mark(over);
    }

    /// <summary>Goes on at a label when the bytes at a place are those of any entry, 4 or 16 of them.</summary>
    internal void GoIfAny(int at, IEnumerable<byte[]> entries, BpfLabel label)
    {
        foreach (byte[] entry in entries)
        {
            BpfLabel next = new();
            RequireLength(at + entry.Length);
            for (int i = 0; i < entry.Length; i += 4)
            {
                Add(LoadWordCode, (uint)(at + i));
                Add(EqualCode, BinaryPrimitives.ReadUInt32BigEndian(entry.AsSpan(i)), 1, 0);
                Go(next);
            }

            Go(label);
            Mark(next);
        }
    }

    internal void Go(BpfLabel label)
    {
        label.From.Add(_instructions.Count);
        Add(JumpCode, 0);
    }

    /// <summary>Here is the label.</summary>
    internal void Mark(BpfLabel label)
    {
        foreach (int from in label.From)
        {
            _instructions[from] = _instructions[from] with { Value = (uint)(_instructions.Count - from - 1) };
        }
    }

    private void Load(ushort code, int at, int bytes)
    {
        RequireLength(at + bytes);
        Add(code, (uint)at);
    }

    // A load beyond the end would return 0 from the whole program, and let the frame pass.
    private void RequireLength(int bytes)
    {
        Add(LoadLengthCode, 0);
        Add(GreaterOrEqualCode, (uint)bytes, 1, 0);
        Drop();
    }

    private void Add(ushort code, uint value, byte whenTrue = 0, byte whenFalse = 0) =>
        _instructions.Add((code, whenTrue, whenFalse, value));
}
